"""databricks-ai-bridge: it resolves the host itself, and knows no port but 5432."""

import os

from databricks_ai_bridge.lakebase import LakebaseClient, LakebasePool

_, project, _, branch, *_ = os.environ["ENDPOINT_NAME"].split("/")
pool = LakebasePool(project=project, branch=branch)
with LakebaseClient(pool=pool) as client:
    print(next(iter(client.execute("SELECT current_user AS name")[0].values())))
