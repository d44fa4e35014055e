"""What closing finds: every failure, in order, told once and in one piece.

Where nothing else is on its way, it is raised: the failure itself, or one error with all of them. An
exception that is on its way already (what ended a block, a cancellation, a time limit, Ctrl-C) is never
replaced: what was found is added to it as notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from .errors import CloseError, DeliveryError

if TYPE_CHECKING:
    from types import TracebackType


class Findings:
    """Collects while something is closed; at the block's end they are raised, or added to what is raised."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._errors: list[Exception] = []
        self._notes: list[str] = []

    def add(self, error: Optional[Exception]) -> None:
        """A failure; None is none."""
        if error is not None:
            self._errors.append(error)

    def interrupted(self, pending: int) -> None:
        """Closing ended early, with so many records whose fate nobody knows."""
        if pending:
            self._notes.append(
                f"{self._what} was closed before {pending} {'record' if pending == 1 else 'records'} had an "
                "answer: the outcome is unknown"
            )

    def __enter__(self) -> Findings:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        error = self._joined()
        if exc_value is not None:
            if error is not None:
                annotate(exc_value, error)
            for note in self._notes:
                _add_note(exc_value, note)
        elif error is not None:
            raise error

    def _joined(self) -> Optional[Exception]:
        errors = self._errors
        if len(errors) < 2:
            return errors[0] if errors else None
        unseen = [error for error in errors if isinstance(error, DeliveryError)]
        if len(unseen) == len(errors):
            failed = sum(error.failed for error in unseen)
            return DeliveryError(
                f"{failed} records failed, and nobody received an error: {_listed(errors)}",
                failed=failed,
                errors=[cause for error in unseen for cause in error.errors],
            )
        return CloseError(f"closing {self._what} found {len(errors)} failures: {_listed(errors)}", errors)


def annotate(exception: BaseException, found: Exception) -> None:
    """Add what closing found to an exception that goes on its way."""
    errors = found.exceptions if isinstance(found, CloseError) else (found,)
    for error in errors:
        _add_note(exception, f"closing found {type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            _add_note(exception, note)


def _add_note(exception: BaseException, note: str) -> None:
    # BaseException.add_note() of Python 3.11; before that, what exceptiongroup and others print.
    exception.__dict__.setdefault("__notes__", []).append(note)


def _listed(errors: list[Exception]) -> str:
    return "; ".join(f"({number}) {error}" for number, error in enumerate(errors, 1))
