"""Lets the API server itself judge a TokenClient of a file: by its schema and its policies, on a dry run."""

from broker.cli.check.manifest_files import FromFile
from broker.cli.check.pool import Pool
from broker.cli.check.problem_lines import Problem
from broker.cli.cluster import Cluster
from broker.cli.errors import RefusedError


async def try_out(cluster: Cluster, pool: Pool, found: FromFile) -> list[Problem]:
    """Return why the API server would not take it. Raises CommandError where it cannot be asked.

    What is to come with the same files, such as the namespace, is not there yet: then nothing is known.
    """
    namespace = found.manifest["metadata"].get("namespace")
    if not namespace or not pool.in_cluster("Namespace", namespace):
        return []
    try:
        await cluster.try_out(found.manifest)
    except RefusedError as error:
        mine = "you may not" in str(error)
        return [Problem(found.file, found.thing, f"on a dry run, {error}", "see there", is_error=not mine)]
    return []
