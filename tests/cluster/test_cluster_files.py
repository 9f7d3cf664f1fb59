"""Cluster files: those of the project pass, spoiled ones are refused with the line and the reason."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbh_dist.cluster.files import check_file
from bbh_dist.config import ConfigError, Mistake

ROOT = Path(__file__).parents[2]
AWS = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
LOCAL = (ROOT / "jobs" / "cluster_local.yaml").read_text(encoding="utf-8")
KEY = "AKIA" + "Q" * 16

# What stands in the file, what is put in its place, and the mistake.
SPOILED_AWS = {
    "no region": ("  region: us-west-2\n", "", "provider.region: must be a region of AWS, such as us-west-2"),
    "no such region": ("region: us-west-2\n", "region: us_west\n", 'provider.region: must be a region of AWS, such as '
                       'us-west-2, got "us_west"'),
    "zone elsewhere": ("us-west-2a,us-west-2b", "us-east-1a", "provider.availability_zone: must be zones of us-west-2"),
    "no instance type": ("      InstanceType: g5.xlarge\n", "", "InstanceType: must be an instance type of AWS"),
    "no such instance type": ("InstanceType: g5.xlarge", "InstanceType: g5_xl", 'such as g5.xlarge, got "g5_xl"'),
    "Ray's old image": ("      ImageId: ami-0123456789abcdef0\n      InstanceM", "      InstanceM", "ImageId: must be"),
    "fewer at most than at least": ("    min_workers: 0", "    min_workers: 5", "from 0 to max_workers, 4, got 5"),
    "more than the cluster takes": (
        "max_workers: 4\nidle", "max_workers: 0\nidle", "max_workers: must be given and at least 1"
    ),
    "no resources": ("resources: {CPU: 4, GPU: 1}", "resources: {}", "resources: must say how many CPUs"),
    "GPU forgotten": ("{CPU: 4, GPU: 1}", "{CPU: 4}", "must say how many GPUs g5.xlarge has"),
    "GPU that is not there": ("resources: {CPU: 0}", "resources: {CPU: 0, GPU: 1}", "an m5.xlarge has no GPU, got 1"),
    "spot head": (
        "InstanceType: m5.xlarge\n",
        "InstanceType: m5.xlarge\n      InstanceMarketOptions: {MarketType: spot}\n",
        "the head must be on-demand",
    ),
    "machines that stand idle": ("idle_timeout_minutes: 10\n", "", "idle_timeout_minutes: must be given and above 0"),
    "another head": ("head_node_type: head", "head_node_type: heat", 'must be one of head, gpu, got "heat"'),
    "mistyped key": ("idle_timeout_minutes", "idle_timeout_minuts", "unknown key (did you mean idle_timeout_minutes?)"),
    "wrong type": ("min_workers: 0", "min_workers: few", "min_workers: must be a whole number"),
    "key twice": ("head_node_type: head", "cluster_name: two", "cluster_name: this key stands twice"),
    "other cloud": ("type: aws", "type: awz", "must be aws or local, got awz (did you mean aws?)"),
    "no token on workers": (
        "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0;\n    ray start --address",
        "ray start --address",
        "worker_start_ray_commands.2: must set RAY_AUTH_MODE=token",
    ),
    "no token file": ("  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "file_mounts: must have ~/.ray/auth_token"),
    "token open to others": ("chmod 600", "chmod 644", "setup_commands: must have chmod 600 ~/.ray/auth_token"),
    "open dashboard without token": (
        "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0;\n    ray start --head --port=6379 "
        "--dashboard-host=127.0.0.1",
        "ray start --head --port=6379 --dashboard-host=0.0.0.0",
        '--dashboard-host must be 127.0.0.1 without token authentication, got "0.0.0.0"',
    ),
    "cut command": ("  - ray stop\n  - ulimit", "  - ray stop # first\n  - ulimit", "YAML cuts a command off at ' #'"),
    "AWS key": ("setup_commands:\n", f"setup_commands:\n  - export A={KEY}\n", "looks like an AWS access key"),
    "token": ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=sesame99 RAY_AUTH_MODE=token", "looks like a secret that is set"),
    "password": (
        "setup_commands:\n",
        "setup_commands:\n  - mlflow --backend-store-uri postgresql://me:sesame99@db/x\n",
        "looks like a URI with a password",
    ),
    "AWS credentials": (
        "  region: us-west-2\n",
        "  region: us-west-2\n  aws_credentials: {aws_secret_access_key: sesame99}\n",
        "provider.aws_credentials.aws_secret_access_key: looks like a secret",
    ),
}  # fmt: skip
SPOILED_LOCAL = {
    "no head": ("  head_ip: 192.168.1.10\n", "", "provider: must have head_ip"),
    "no workers": ("  worker_ips: [192.168.1.11, 192.168.1.12]\n", "", "provider: must have worker_ips"),
    "host twice": ("192.168.1.12]", "192.168.1.10]", "worker_ips.1: this host stands twice"),
    "loopback": ("head_ip: 192.168.1.10", "head_ip: 127.0.0.1", "must be an address that the other hosts reach"),
    "no host": ("192.168.1.12]", "'-oProxyCommand=x']", "worker_ips.1: must be a host's address or name"),
    "no login": ("  ssh_user: ubuntu\n", "", "auth: must have ssh_user"),
    "second autoscaler": ("RAY_enable_autoscaler_v2=0 ", "", "must set RAY_enable_autoscaler_v2=0"),
    "hosts that stay idle": ("provider:\n", "max_workers: 1\nprovider:\n", "max_workers: must be left out, or 2"),
    "node types": ("provider:\n", "available_node_types: {}\nprovider:\n", "available_node_types: must be left out"),
}


def refusal(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check_file(path)
    return str(caught.value).splitlines()


def check(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bbh_dist.cluster", "check", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("path", [ROOT / "cluster.yaml", ROOT / "jobs" / "cluster_local.yaml"], ids=lambda p: p.name)
def test_the_files_of_the_project_keep_the_rules(path: Path) -> None:
    check_file(path)


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [(AWS, *case) for case in SPOILED_AWS.values()] + [(LOCAL, *case) for case in SPOILED_LOCAL.values()],
    ids=[*SPOILED_AWS, *(f"local, {name}" for name in SPOILED_LOCAL)],
)
def test_a_spoiled_copy_is_refused_with_line_and_reason(
    tmp_path: Path, text: str, old: str, new: str, message: str
) -> None:
    assert old in text
    path = tmp_path / "cluster.yaml"
    line = next(line for line in refusal(path, text.replace(old, new, 1)) if message in line)
    number = line.removeprefix(f"{path}:").partition(":")[0]
    assert number.isdigit()


def test_the_line_is_the_one_of_the_key(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    text = AWS.replace("region: us-west-2\n", "region: nowhere\n").replace("{CPU: 4, GPU: 1}", "{GPU: 1}")
    lines = {key: 1 + next(i for i, line in enumerate(text.splitlines()) if key in line) for key in ("nowhere", "{GPU")}
    found = refusal(path, text)
    assert [line.split(": ")[0] for line in found] == [f"{path}:{number}" for number in lines.values()]


@pytest.mark.parametrize(("old", "new"), [SPOILED_AWS[name][:2] for name in ("AWS key", "token", "password",
                                                                            "AWS credentials")])  # fmt: skip
def test_no_secret_of_a_file_is_repeated(tmp_path: Path, old: str, new: str) -> None:
    found = "\n".join(refusal(tmp_path / "cluster.yaml", AWS.replace(old, new, 1)))
    assert "sesame" not in found
    assert KEY not in found


def test_a_dashboard_for_others_is_let_pass_with_a_token(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(AWS.replace("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"), encoding="utf-8")
    check_file(path)


def test_the_command_passes_offline_and_refuses_in_lines(tmp_path: Path) -> None:
    passed = check("cluster.yaml", "--offline")
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, "cluster.yaml: no mistake found\n", "")
    path = tmp_path / "spoiled.yaml"
    path.write_text(AWS.replace("type: aws", "type: awz"), encoding="utf-8")
    refused = check(path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"{path}:")
    assert refused.stderr.count("\n") == 1


def test_the_command_says_what_it_needs() -> None:
    assert "FILE or --address" in check().stderr
    assert check("nowhere.yaml").stderr == "nowhere.yaml: cannot be read: No such file or directory\n"
    refused = check("--address", "auto", "--tracking-uri", "http://me:hid den@host:1")
    assert refused.stderr == '--tracking-uri: must have %20 for a space, got "http://me:***@host:1"\n'


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 99), st.text(max_size=8), st.just("[]"), st.just("{a: 1}"))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data(), text=st.sampled_from([AWS, LOCAL]))
def test_a_mutated_file_gives_lines_and_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, text: str
) -> None:
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(lines) - 1))
        before, colon, _ = lines[index].partition(": ")
        kind = data.draw(st.sampled_from(["drop", "value", "indent"]))
        if kind == "value" and colon:
            lines[index] = f"{before}: {data.draw(VALUES)}"
        else:
            lines[index] = "" if kind == "drop" else " " + lines[index]
    path = tmp_path_factory.mktemp("fuzz") / "cluster.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    mistakes: tuple[Mistake, ...] = ()
    try:
        check_file(path)
    except ConfigError as error:
        mistakes = error.mistakes
    assert all(str(mistake).startswith(f"{path}:") for mistake in mistakes)
