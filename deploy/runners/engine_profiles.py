"""Which optimization profile of an engine serves a batch."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.engines.manifest import Manifest, ShapeRange

__all__ = ["EngineProfiles", "profiles_of"]


@dataclass(frozen=True, slots=True)
class EngineProfiles:
    """Shapes of an engine's only input, one range for each profile, in TensorRT's order."""

    shapes: tuple[ShapeRange, ...]

    @property
    def largest(self) -> int:
        """The profile that takes the largest batch: memory is taken for it."""
        return max(range(len(self.shapes)), key=lambda at: self.shapes[at].max[0])

    @property
    def whole(self) -> ShapeRange:
        """From the smallest batch of all profiles to the largest, tuned as the largest is."""
        smallest = min(self.shapes, key=lambda shapes: shapes.min[0])
        largest = self.shapes[self.largest]
        return ShapeRange(smallest.min, largest.opt, largest.max)

    def fitting(self, count: int) -> int:
        """Return the profile for a batch: the least to fill up, then the closest range.

        Args:
            count: Images, at most the largest profile's.

        >>> both = EngineProfiles((ShapeRange((1,), (1,), (1,)), ShapeRange((4,), (8,), (32,))))
        >>> [both.fitting(count) for count in (1, 2, 32)]
        [0, 1, 1]
        """
        able = [at for at, shapes in enumerate(self.shapes) if count <= shapes.max[0]]
        return min(
            able, key=lambda at: (max(count, self.shapes[at].min[0]), self.shapes[at].max[0])
        )


def profiles_of(manifest: Manifest) -> EngineProfiles:
    """Read an engine's profiles; one with fixed shapes has these."""
    name, fixed = manifest.inputs[0].name, manifest.inputs[0].shape
    shapes = tuple(profile[name] for profile in manifest.profiles if name in profile)
    return EngineProfiles(shapes or (ShapeRange(fixed, fixed, fixed),))
