"""Five assets, one after the other, for what Dagster itself writes about them."""

import dagster as dg


def step(number: int, after: dg.AssetsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(name=f"step_{number}", deps=[after] if after else [])
    def numbered() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"number": number})

    return numbered


assets: list[dg.AssetsDefinition] = []
for number in range(5):
    assets.append(step(number, assets[-1] if assets else None))

defs = dg.Definitions(
    assets=assets,
    jobs=[
        dg.define_asset_job("in_process", config={"execution": {"config": {"in_process": {}}}}),
        # Each step costs a process that imports Dagster: two show what five do.
        dg.define_asset_job("multiprocess", selection=["step_0", "step_1"]),
    ],
)
