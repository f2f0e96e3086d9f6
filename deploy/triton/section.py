"""Typed access to the fields of a ``config.pbtxt`` that anybody may have written."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.triton.pbtxt import Message, Value, Word

__all__ = ["FIELDS", "INT32", "UINT64", "Section", "WrongFieldError"]

INT32, _INT64, UINT64 = (1 << 31) - 1, (1 << 63) - 1, (1 << 64) - 1

# What each message of a configuration may hold, as far as it is looked into. A test holds these
# lists against the protobuf messages of tritonclient.
FIELDS: dict[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "ModelConfig": "name platform backend runtime version_policy max_batch_size input output "
        "batch_input batch_output optimization dynamic_batching sequence_batching "
        "ensemble_scheduling instance_group default_model_filename cc_model_filenames metric_tags "
        "parameters model_warmup model_operations model_transaction_policy "
        "model_repository_agents response_cache model_metrics",
        "ModelInput": "name data_type format dims reshape is_shape_tensor allow_ragged_batch "
        "optional is_non_linear_format_io",
        "ModelOutput": "name data_type dims reshape label_filename is_shape_tensor "
        "is_non_linear_format_io",
        "ModelInstanceGroup": "name kind count rate_limiter gpus secondary_devices profile passive "
        "host_policy",
        "ModelDynamicBatching": "preferred_batch_size max_queue_delay_microseconds "
        "preserve_ordering priority_levels default_priority_level default_queue_policy "
        "priority_queue_policy",
        "ModelVersionPolicy": "latest all specific",
        "ModelWarmup": "name batch_size inputs count",
        "ModelOptimizationPolicy": "graph priority cuda execution_accelerators "
        "input_pinned_memory output_pinned_memory gather_kernel_buffer_threshold eager_batching",
    }.items()
}


class WrongFieldError(ValueError):
    """A field that is missing, unknown, or of another type than Triton's."""


class Section:
    """A message; each accessor returns a value of its type or says what is wrong.

    Args:
        message: Its fields.
        kind: Its name in ``model_config.proto``; empty where its fields are not listed.
        at: Where it is, for the error text (``"input[0]."``).

    Raises:
        WrongFieldError: It holds a field that Triton does not know.
    """

    def __init__(self, message: Message, kind: str = "", at: str = "") -> None:
        self._fields = message.fields
        self.at = at
        unknown = [name for name in message.fields if name not in FIELDS.get(kind, message.fields)]
        if unknown:
            raise WrongFieldError(f"{at}{unknown[0]}: Triton knows no such field")

    def __contains__(self, name: object) -> bool:
        """Tell whether a field is there."""
        return name in self._fields

    def _one(self, name: str) -> Value | None:
        values = self._fields.get(name, [])
        if len(values) > 1:
            raise WrongFieldError(f"{self.at}{name}: is said {len(values)} times")
        return values[0] if values else None

    def text(self, name: str) -> str:
        """Return a text; empty when it is not there."""
        value = self._one(name)
        if value is not None and (not isinstance(value, str) or isinstance(value, Word)):
            raise WrongFieldError(f"{self.at}{name}: is not a text in quotes")
        return value or ""

    def word(self, name: str) -> str:
        """Return an enumeration's value; empty when it is not there."""
        value = self._one(name)
        if value is not None and not isinstance(value, Word):
            raise WrongFieldError(f"{self.at}{name}: is not a name without quotes")
        return value or ""

    def integer(self, name: str, default: int = 0, *, largest: int = INT32) -> int:
        """Return a whole number that its type can hold."""
        value = self._one(name)
        if value is None:
            return default
        if not isinstance(value, int):
            raise WrongFieldError(f"{self.at}{name}: is not a whole number")
        return self._held(name, value, largest)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        values = self._fields.get(name, [])
        found = tuple(value for value in values if isinstance(value, int))
        if len(found) < len(values):
            raise WrongFieldError(f"{self.at}{name}: is not a list of whole numbers")
        for value in found:
            self._held(name, value, _INT64)
        return found

    def _held(self, name: str, value: int, largest: int) -> int:
        if value > largest:
            raise WrongFieldError(f"{self.at}{name}: {value} is more than Triton holds there")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self._fields.get(name, [])
        found = tuple(v for v in values if isinstance(v, str) and not isinstance(v, Word))
        if len(found) < len(values):
            raise WrongFieldError(f"{self.at}{name}: is not a list of texts in quotes")
        return found

    def section(self, name: str, kind: str = "") -> Section | None:
        """Return a message; None when it is not there."""
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, Message):
            raise WrongFieldError(f"{self.at}{name}: is not a message in braces")
        return Section(value, kind, f"{self.at}{name}.")

    def sections(self, name: str, kind: str = "") -> Iterator[Section]:
        """Yield the messages of a repeated field."""
        for at, value in enumerate(self._fields.get(name, [])):
            if not isinstance(value, Message):
                raise WrongFieldError(f"{self.at}{name}[{at}]: is not a message in braces")
            yield Section(value, kind, f"{self.at}{name}[{at}].")

    def mapping(self, name: str) -> dict[str, Section]:
        """Return a map's entries by key; what each holds is under ``value``."""
        entries = list(self.sections(name))
        return {entry.text("key"): entry for entry in entries}
