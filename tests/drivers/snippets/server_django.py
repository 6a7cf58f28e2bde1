"""A site of one view behind the snippet's middleware, served on the port that is given."""

import os
import sys
import urllib.parse
import wsgiref.simple_server

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction
from django.http import JsonResponse
from django.urls import path

# SNIPPET


def visits(request, key):
    with connection.cursor() as cursor:
        if request.method == "POST":
            with transaction.atomic():
                cursor.execute("INSERT INTO visits VALUES (%s)", [key])
            return JsonResponse(None, safe=False)
        cursor.execute("SELECT count(*) FROM visits WHERE key = %s", [key])
        return JsonResponse(cursor.fetchone()[0], safe=False)


urlpatterns = [path("visits/<key>", visits)]
database = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.causeway"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "HOST": database.hostname, "PORT": database.port,
        "USER": database.username, "PASSWORD": database.password, "NAME": database.path[1:]}},
)
django.setup()
wsgiref.simple_server.make_server("127.0.0.1", int(sys.argv[1]), WSGIHandler()).serve_forever()
