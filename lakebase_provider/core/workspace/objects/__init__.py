"""The objects of Lakebase Autoscaling, as the workspace's API has them; none of them opens a connection."""
