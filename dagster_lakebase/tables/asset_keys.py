"""Assets, given in any form that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import dagster as dg

#: An asset, or anything that names one.
Asset: TypeAlias = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset | dg.AssetKey | str | Sequence[str]


def asset_keys(assets: Iterable[Asset], function: str) -> list[dg.AssetKey]:
    """The keys of all assets, each once.

    Args:
        assets: The assets, or their keys.
        function: The function that was given them, for the error.

    Raises:
        DagsterInvalidDefinitionError: There are none, or it is one name and no list.
    """
    require_list(assets, function)
    keys = list(dict.fromkeys(key for asset in assets for key in _keys(asset)))
    if not keys:
        raise dg.DagsterInvalidDefinitionError(f"{function} was given no assets.")
    return keys


def op_name(name: str, keys: Iterable[dg.AssetKey]) -> str:
    """A name that the keys tell from that of other checks of one name, in any order of them."""
    told = "\n".join(sorted(key.to_string() for key in keys))
    return f"{name}_{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def require_list(assets: Iterable[Asset], function: str) -> None:
    """Refuse one name where a list is expected: its letters would be assets.

    Raises:
        DagsterInvalidDefinitionError: It is one.
    """
    if isinstance(assets, str):
        raise dg.DagsterInvalidDefinitionError(f"{function} takes a list of assets: [{assets!r}].")


def asset_specs(assets: Iterable[Asset], function: str) -> dict[dg.AssetKey, dg.AssetSpec]:
    """A specification of each asset; of one that is named by its key, one without metadata.

    Args:
        assets: The assets, or their keys.
        function: The function that was given them, for the error.

    Raises:
        DagsterInvalidDefinitionError: There are none, or it is one name and no list.
    """
    require_list(assets, function)
    specs: dict[dg.AssetKey, dg.AssetSpec] = {}
    for asset in assets:
        if isinstance(asset, dg.AssetsDefinition):
            specs.update((spec.key, spec) for spec in asset.specs)
        elif isinstance(asset, dg.AssetSpec):
            specs[asset.key] = asset
        else:
            (key,) = asset_keys([asset], function)
            metadata = asset.metadata if isinstance(asset, dg.SourceAsset) else {}
            specs[key] = dg.AssetSpec(key, metadata=metadata)
    if not specs:
        raise dg.DagsterInvalidDefinitionError(f"{function} was given no assets.")
    return specs


def _keys(asset: Asset) -> Iterable[dg.AssetKey]:
    if isinstance(asset, dg.AssetsDefinition):
        return sorted(asset.keys)
    if isinstance(asset, (dg.AssetSpec, dg.SourceAsset)):
        return [asset.key]
    return [dg.AssetKey.from_coercible(asset)]
