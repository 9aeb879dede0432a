"""The recipes of docs/scale.md give each worker a valid TF_CONFIG; the cost model."""

import json
import os
import re
import subprocess

import kubernetes_validate
import numpy as np
import pytest
import yaml

from convae.runtime.cluster import Cluster, parse_tf_config
from scripts.bench import distribution as scale
from tests.conftest import ROOT


def config_of(script: str, **environment: str) -> Cluster:
    """Return the cluster of the TF_CONFIG with which the script would start convae."""
    assert script.count("exec convae train") == 1
    printed = re.sub(r"exec convae train [^'\n]*", 'printf "%s" "$TF_CONFIG"', script)
    done = subprocess.run(
        ["bash", "-c", printed], env={**os.environ, **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return parse_tf_config(done.stdout)


def test_every_pod_of_the_job_is_a_worker() -> None:
    service, job = yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]  # all must be there at once
    assert spec["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    for rank in range(spec["completions"]):
        found = config_of(container["args"][0], JOB_COMPLETION_INDEX=str(rank))
        assert (found.count, found.rank) == (spec["completions"], rank)
        # <job>-<index>.<subdomain>, as the documentation of indexed jobs says
        assert found.workers[rank].startswith(
            f"{job['metadata']['name']}-{rank}.{pod['subdomain']}:"
        )
        assert found.port == container["ports"][0]["containerPort"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("version", ["1.27", "1.36"])
def test_the_manifests_match_the_schema_of_kubernetes(version: str) -> None:
    manifests = list(yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text()))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
    manifests[1]["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError, match="completionsMode"):
        kubernetes_validate.validate(manifests[1], version, strict=True)


def test_every_task_of_slurm_is_a_worker() -> None:
    page = (ROOT / "docs/scale.md").read_text()
    script = page.partition("```bash\n")[2].partition("```")[0]
    stand_ins = 'scontrol() { printf "n1\\nn2\\n"; }\nsrun() { "$@"; }\n'
    for rank in range(2):
        found = config_of(stand_ins + script, SLURM_PROCID=str(rank), SLURM_JOB_NODELIST="n[1-2]")
        assert found == Cluster(("n1:2222", "n2:2222"), rank)


def test_a_ring_of_many_workers_sends_its_bytes_twice() -> None:
    workers = np.array([1, 2, 1000])
    assert scale.exchange(workers, 1e6, 0.0, 1e6) == pytest.approx([0, 1, 1.998])
    assert scale.exchange(workers, 0.0, 1e-3, 1e6) == pytest.approx([0, 0.002, 1.998])


@pytest.mark.skipif(
    not scale.RESULT.exists(), reason="python -m scripts.bench.distribution was not run"
)
def test_the_chart_has_its_measurements() -> None:
    figures = json.loads((ROOT / "docs/scale.json").read_text())
    assert {row["workers"] for row in figures["steps"]} == {1, 2}
    assert all(value >= 0 for value in figures["fit"].values())
    small, middle, large = scale.workloads(figures)
    assert small.parameters == 12_785
    assert small.per_image < middle.per_image < large.per_image
    assert scale.CHART.exists()
