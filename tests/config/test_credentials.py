from raylora.config.credentials import shown


def test_messages_hide_credentials() -> None:
    assert shown("failed at https://me:secret@host/x") == "failed at https://host/x"
    assert shown("http://host:5000") == "http://host:5000"
