"""Two assets that would share a table are refused when their definitions are loaded."""

# No "from __future__ import annotations": Dagster reads the annotations of assets as objects.

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from dagster._core.definitions.assets.definition.cacheable_assets_definition import (
    AssetsDefinitionCacheableData,
    CacheableAssetsDefinition,
)
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

from dagster_lakebase import (
    LakebaseBranchDeployment,
    LakebaseIOManager,
    LakebaseResource,
    validate_table_owners,
)
from lakebase_provider.local import LocalLakebase
from tests.dagster.tables import Run
from tests.forked import Forks

# Dagster itself uses what it calls deprecated or unfinished, and what pydantic has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in beta:dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:.* is currently in preview:dagster.PreviewWarning"),
]

ENDPOINT = "projects/p/branches/b/endpoints/e"
SHARED = "Assets bronze/things, silver/things would share table pr_1.things"
BOTH = {"dagster/table_name": "pr_1.things"}


def asset_of(key: list[str], metadata: Any = None, **arguments: Any) -> dg.AssetsDefinition:
    @dg.asset(key=key, metadata=metadata, **arguments)
    def made() -> pa.Table:
        return pa.table({"n": [7]})

    return made


def manager(schema: Any = "pr_1", **settings: Any) -> LakebaseIOManager:
    return LakebaseIOManager(lakebase=LakebaseResource(**settings), schema=schema)


def definitions(*assets: Any, **arguments: Any) -> dg.Definitions:
    return dg.Definitions(assets=[asset_of(["silver", "things"]), *assets], **{**BOUND, **arguments})


BOUND: Any = {"resources": {"io_manager": manager()}}
BRONZE = ["bronze", "things"]


def problem_of(defs: dg.Definitions) -> str:
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        validate_table_owners(defs)
    return str(caught.value)


def plain() -> dg.Definitions:
    return definitions(asset_of(BRONZE))


def by_metadata() -> dg.Definitions:
    other = asset_of(["silver", "things"], {"dagster/table_name": "pr_1.things"})
    bound = {"io_manager": manager("elsewhere")}
    return dg.Definitions(assets=[other, asset_of(BRONZE, BOTH)], resources=bound)


def partitioned() -> dg.Definitions:
    days = dg.DailyPartitionsDefinition("2026-01-01")
    return definitions(asset_of(BRONZE, {"partition_expr": "n"}, partitions_def=days))


def multi_asset() -> dg.Definitions:
    @dg.multi_asset(outs={"a": dg.AssetOut(key=BRONZE), "b": dg.AssetOut(key=["b"])}, can_subset=True)
    def several() -> Iterator[Any]:
        yield dg.Output(pa.table({}), "a")

    return definitions(several)


def graph_asset() -> dg.Definitions:
    @dg.op
    def step() -> pa.Table:
        return pa.table({})

    @dg.graph_asset(key=BRONZE)
    def made_of_ops() -> Any:
        return step()

    return definitions(made_of_ops)


def merged() -> dg.Definitions:
    # Neither of the two has all that the other one needs.
    return dg.Definitions.merge(dg.Definitions(assets=[asset_of(BRONZE)]), definitions())


def in_an_automation() -> dg.Definitions:
    @dg.sensor(target=[asset_of(BRONZE)])
    def waits() -> None: ...

    return definitions(sensors=[waits])


def with_a_resource_of_its_own() -> dg.Definitions:
    own = {"own": manager()}
    return definitions(asset_of(BRONZE, io_manager_key="own", resource_defs=own))


def resolved_late() -> dg.Definitions:
    class Late(CacheableAssetsDefinition):
        def compute_cacheable_data(self) -> Sequence[AssetsDefinitionCacheableData]:
            return []

        def build_definitions(self, data: Any) -> Sequence[dg.AssetsDefinition]:
            return [asset_of(BRONZE)]

    return definitions(Late("late"))


def two_keys(one: LakebaseIOManager, other: LakebaseIOManager) -> dg.Definitions:
    bronze = asset_of(BRONZE, io_manager_key="other")
    return definitions(bronze, resources={"io_manager": one, "other": other})


def to_one_database() -> dg.Definitions:
    # As other users, and with pools of other sizes: it is one database.
    return two_keys(
        manager(endpoint=ENDPOINT, database="shop", client_id="one", max_size=1),
        manager(endpoint=ENDPOINT, database="shop", client_id="other"),
    )


def to_one_variable() -> dg.Definitions:
    one, other = (manager(database=dg.EnvVar("NOT_SET_HERE"), port=dg.EnvVar.int("NOR_THIS")) for _ in "ab")
    return two_keys(one, other)


def to_one_connection_of_the_launch() -> dg.Definitions:
    at_launch = LakebaseResource.configure_at_launch()
    one, other = (LakebaseIOManager(lakebase=at_launch, schema="pr_1") for _ in "ab")
    defs = two_keys(one, other)
    return dg.Definitions.merge(defs, dg.Definitions(resources={"lakebase": at_launch}))


SHARING = [
    plain,
    by_metadata,
    partitioned,
    multi_asset,
    graph_asset,
    merged,
    in_an_automation,
    with_a_resource_of_its_own,
    resolved_late,
    to_one_database,
    to_one_variable,
    to_one_connection_of_the_launch,
]


@pytest.mark.parametrize("make", SHARING)
def test_they_are_refused(make: Any) -> None:
    problem = problem_of(make())
    assert problem.startswith(SHARED)
    assert '{"dagster/table_name": "pr_1.silver_things"}' in problem


def nothing_stored() -> dg.Definitions:
    @dg.asset(key=BRONZE)
    def none() -> None: ...

    @dg.multi_asset(specs=[dg.AssetSpec(["gold", "things"])])
    def results() -> Any:
        yield dg.MaterializeResult(asset_key=["gold", "things"])

    @dg.observable_source_asset(key=["seen", "things"])
    def seen() -> Any: ...

    return definitions(
        none, results, seen, dg.AssetSpec(["raw", "things"]), dg.SourceAsset(["old", "things"])
    )


def no_table() -> dg.Definitions:
    bronze = asset_of(BRONZE, io_manager_key="memory")
    return definitions(bronze, resources={"io_manager": manager(), "memory": dg.mem_io_manager})


def in_tables_of_their_own() -> dg.Definitions:
    return definitions(asset_of(BRONZE, {"dagster/table_name": "pr_1.raw_things"}), asset_of(["things", "b"]))


def misnamed() -> dg.Definitions:
    return definitions(asset_of(BRONZE, {"dagster/table_name": "a.b.c.d"}))


def in_other_databases() -> dg.Definitions:
    return two_keys(manager(database="shop"), manager(database="site"))


def on_another_branch() -> dg.Definitions:
    return two_keys(manager(endpoint=ENDPOINT), manager(endpoint=ENDPOINT.replace("/b/", "/c/")))


def in_a_branch_deployment() -> dg.Definitions:
    branched = LakebaseIOManager(lakebase=LakebaseBranchDeployment(), schema="pr_1")
    return two_keys(manager(), branched)


def in_a_schema_of_the_environment() -> dg.Definitions:
    # It may be left empty, and then the keys' prefixes are the schemas.
    return definitions(asset_of(BRONZE), resources={"io_manager": manager(dg.EnvVar("NOT_SET_HERE"))})


def by_other_variables() -> dg.Definitions:
    return two_keys(manager(database=dg.EnvVar("SHOP")), manager(database="SHOP"))


APART = [
    nothing_stored,
    no_table,
    in_tables_of_their_own,
    misnamed,
    in_other_databases,
    on_another_branch,
    in_a_branch_deployment,
    in_a_schema_of_the_environment,
    by_other_variables,
]


@pytest.mark.filterwarnings("ignore:.* is deprecated and will be removed in 2.0:DeprecationWarning")
@pytest.mark.parametrize("make", APART)
def test_what_shares_no_table_is_loaded(make: Any) -> None:
    defs = make()
    assert validate_table_owners(defs) is defs
    dg.Definitions.validate_loadable(defs)


def test_a_table_that_is_named_in_full_is_refused_in_any_schema() -> None:
    defs = dg.Definitions(
        assets=[asset_of(["silver", "things"], BOTH), asset_of(BRONZE, BOTH)],
        resources={"io_manager": manager(dg.EnvVar("NOT_SET_HERE"))},
    )
    assert problem_of(defs).startswith(SHARED)


def failure_in(run: Run, defs: dg.Definitions, key: list[str]) -> str:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=run.instance, asset_selection=[dg.AssetKey(key)], raise_on_error=False
    )
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return "\n".join(map(str, errors))


@pytest.fixture
def run(lake: LocalLakebase) -> Iterator[Run]:
    lake.admin.execute("DROP SCHEMA IF EXISTS pr_1 CASCADE")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Run(lake, instance)


def test_a_run_says_the_same(run: Run) -> None:
    defs = plain()
    assert problem_of(defs) in failure_in(run, defs, ["silver", "things"])
    assert run.execute("SELECT to_regnamespace('pr_1')") == [(None,)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"schema": dg.EnvVar("LATE")}, {"schema": "pr_1"}),
        ({"database": dg.EnvVar("LATE_DATABASE")}, {}),
        ({}, {"database": "databricks_postgres"}),
    ],
)
def test_what_only_a_run_knows_is_refused_there(
    run: Run, one: dict[str, Any], other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATE", "pr_1")
    monkeypatch.setenv("LATE_DATABASE", "databricks_postgres")
    defs = validate_table_owners(two_keys(manager(**one), manager(**other)))
    for key in (["silver", "things"], BRONZE):
        assert SHARED in failure_in(run, defs, key)
    assert run.execute("SELECT to_regnamespace('pr_1')") == [(None,)]


def test_another_io_manager_that_lacks_a_variable_is_left_alone(run: Run) -> None:
    defs = two_keys(manager(), manager(database=dg.EnvVar("NOT_SET_HERE")))
    assert failure_in(run, defs, ["silver", "things"]) == ""


ASSETS = """
import dagster as dg
import pyarrow as pa


@dg.asset(key_prefix="silver")
def things() -> pa.Table:
    return pa.table({"n": [7]})


@dg.asset(key=["bronze", "things"])
def raw_things() -> pa.Table:
    return pa.table({"n": [7]})
"""


BINDING = """
import dagster as dg
from dagster_lakebase import LakebaseIOManager, LakebaseResource


@dg.definitions
def storing() -> dg.Definitions:
    manager = LakebaseIOManager(lakebase=LakebaseResource(), schema="pr_1")
    return dg.Definitions(resources={"io_manager": manager})
"""


def write(folder: Path, kind: str, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": kind, **content}))


def fill(defs: Path) -> None:
    """An I/O manager, and assets that would share a table, in folders of a project."""
    write(defs / "lakebase", "dagster_lakebase.LakebaseConnectionComponent", attributes={})
    attributes = {"schema": "pr_1"}
    write(defs / "storing", "dagster_lakebase.LakebaseIOManagerComponent", attributes=attributes)
    (defs / "shop").mkdir()
    (defs / "shop/assets.py").write_text(ASSETS)


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        fill(sandbox.defs_folder_path)
        yield sandbox


def test_a_component_refuses_assets_of_its_project(sandbox: DefsFolderSandbox) -> None:
    with sandbox.build_all_defs() as defs:
        # Each time, for the process of a code location tries again when it is reloaded.
        for _ in range(2):
            with pytest.raises(dg.DagsterInvalidDefinitionError, match=SHARED):
                dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("folder", ["shop", "."])
def test_a_component_waits_for_the_last_names_of_assets(sandbox: DefsFolderSandbox, folder: str) -> None:
    attributes = {"metadata": {"dagster/table_name": "pr_1.raw_things"}}
    write(
        sandbox.defs_folder_path / folder,
        "dagster.DefsFolderComponent",
        post_processing={"assets": [{"target": "key:bronze/things", "attributes": attributes}]},
    )
    with sandbox.build_all_defs() as defs:
        dg.Definitions.validate_loadable(defs)
        bronze = defs.resolve_assets_def(dg.AssetKey(BRONZE))
    assert bronze.metadata_by_key[bronze.key]["dagster/table_name"] == "pr_1.raw_things"


def test_a_project_that_binds_the_io_manager_in_python() -> None:
    with create_defs_folder_sandbox() as sandbox:
        (sandbox.defs_folder_path / "assets.py").write_text(ASSETS)
        (sandbox.defs_folder_path / "storing.py").write_text(BINDING)
        with sandbox.build_all_defs() as defs:
            assert problem_of(defs).startswith(SHARED)


def command(forks: Forks, home: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run a command of Dagster, and return how it ended and what it printed."""
    variables = {**os.environ, "DAGSTER_HOME": str(home), "COLUMNS": "200", **env}
    result = forks.run(*arguments, cwd=home, env=variables)
    return result.returncode, result.stdout + result.stderr


DEFINITIONS = """
from dagster_lakebase import LakebaseIOManager, LakebaseResource, validate_table_owners

defs = validate_table_owners(
    dg.Definitions(
        assets=[things, raw_things],
        resources={"io_manager": LakebaseIOManager(lakebase=LakebaseResource(), schema=SCHEMA)},
    )
)
"""


def test_dagsters_command_says_so(forks: Forks, tmp_path: Path) -> None:
    validate = ("-m", "dagster", "definitions", "validate", "-f")
    for schema, refused in (("'pr_1'", True), ("None", False)):
        file = tmp_path / f"{schema.strip(chr(39))}.py"
        file.write_text(ASSETS + DEFINITIONS.replace("SCHEMA", schema))
        code, printed = command(forks, tmp_path, *validate, str(file))
        assert (code != 0, SHARED in printed) == (refused, refused), printed[-4000:]


def test_dg_says_so_in_a_project(forks: Forks, tmp_path: Path) -> None:
    defs = tmp_path / "src/shop/defs"
    defs.mkdir(parents=True)
    fill(defs)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0.1.0"\n'
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    (defs.parent / "definitions.py").write_text(
        "from pathlib import Path\nfrom dagster import definitions, load_from_defs_folder\n\n\n"
        "@definitions\ndef defs():\n"
        "    return load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    dg_command = str(Path(sys.executable).with_name("dg"))
    code, printed = command(forks, tmp_path, dg_command, "check", "defs", PYTHONPATH=str(tmp_path / "src"))
    assert code != 0
    assert SHARED in printed, printed[-4000:]
