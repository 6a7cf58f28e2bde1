"""Django's test runner, which also writes a line for each test: its name, its outcome, and why."""

import os
import unittest

from django.test.runner import DiscoverRunner


class TellingResult(unittest.TextTestResult):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.told = open(os.environ["CAUSEWAY_TEST_OUTCOMES"], "w", buffering=1)

    def tell(self, test, outcome, why=""):
        self.told.write(f"{test.id()}\t{outcome}\t{' '.join(str(why).split())[:300]}\n")

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "passed")

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "failed", err[1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "failed", err[1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.tell(test, "failed", err[1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.tell(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.tell(test, "failed", "unexpected success")


class TellingRunner(DiscoverRunner):
    def get_resultclass(self):
        return TellingResult
