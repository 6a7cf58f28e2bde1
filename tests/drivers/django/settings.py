"""Settings for Django's own tests: where the databases are, and a runner that tells each test's outcome."""

import os

DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": os.environ["CAUSEWAY_TEST_PORT"],
        "USER": "postgres",
        "PASSWORD": os.environ["CAUSEWAY_TEST_PASSWORD"],
        "NAME": f"django_{alias}",
    }
    for alias in ("default", "other")
}
SECRET_KEY = "nothing to hide"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "telling_runner.TellingRunner"
