"""docs/deploy.md beside what it names: template, commands, options, files, AWS's own words."""

from __future__ import annotations

import re
import shlex
import textwrap
from fnmatch import fnmatchcase
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from extract_jobs.cli.arguments import argument_parser
from extract_jobs.config import job_settings, load_config, specs_for
from extract_jobs.connections.databases import ENGINES
from extract_jobs.connections.urls import from_secret
from infra.deploy import _parser
from infra.deployer import PARTS, deployer_policy
from infra.image import build
from tests.support.permissions import WORKER, Resolver, allows, resource_forms, template

ROOT = Path(__file__).parents[2]
DATA = "extract-jobs-data-123456789012-eu-central-1"
PAGE = (ROOT / "docs" / "deploy.md").read_text()
GIVEN = {"ArtifactsBucket", "ArtifactsPrefix", "Version"}
"""Parameters that `infra.deploy` gives by itself."""
ELSEWHERE = {
    "ExecutionsFailed", "Errors", "Pipeline", "ExtractJobs", "CfnInclude", "CREATE_TABLE", "ALTER",
    "INSERT", "DESCRIBE", "DATA_LOCATION_ACCESS", "ROLLBACK_COMPLETE", "ARGS", "SHA256SUMS",
    "TablesFailed", "TablesOverdue", "CAPABILITY_IAM", "DELETE", "SELECT", "Location", "GlueRole",
    "EmrRole", "EcsTaskRole",
}  # fmt: skip
"""Names of AWS's, of metrics and of files: not of the template."""
BLOCKS = re.findall(r"```(?:yaml)?\n(.*?)```", PAGE, re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
CUSTOM = {("s3", "cp"), ("s3", "rm"), ("cloudformation", "deploy")}
"""Commands that the AWS CLI makes of several calls."""
GLOBAL = {"query", "region", "output"}


def commands():
    """Yield every command of the page, in blocks and in the text, as a list of words."""
    for text in [*BLOCKS, *INLINE]:
        for line in text.replace("\\\n", " ").splitlines():
            part = re.search(
                r"(?:^|\| )\s*(aws|make|python|extract-jobs|spark-submit|docker) .*", line
            )
            if part:
                yield re.split(r"\s+\|\s+|\s+>\s+", part[0].strip(" |"))[0]


def words(command):
    # A literal that goes on over lines is cut: its command and options stand before it.
    try:
        return shlex.split(command)
    except ValueError:
        return command.split("'")[0].split()


def commands_of(program):
    return [words(command) for command in commands() if command.split()[0] == program]


def test_the_page_names_every_parameter_and_alarm_and_only_what_there_is():
    parameters, outputs = set(template()["Parameters"]), set(template()["Outputs"])
    alarms = {name for name, r in template()["Resources"].items()
              if r["Type"] == "AWS::CloudWatch::Alarm"}  # fmt: skip
    rows = re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)
    in_rows = {name for row in rows for name in re.findall(r"`([A-Za-z]+)`", row)}
    assert in_rows >= (parameters - GIVEN) | alarms
    named = {text for text in INLINE if re.fullmatch(r"[A-Z][A-Za-z_0-9]+", text)}
    assert named - parameters - outputs - alarms - ELSEWHERE == set()
    assert named >= ELSEWHERE
    printed = set(re.findall(r"outputs? `(\w+)`", PAGE))
    assert printed <= outputs
    shown = set(re.findall(r"<([A-Z][A-Za-z]+)>", PAGE))
    assert shown <= outputs | {"SourceName"}, shown - outputs


def test_the_defaults_that_the_page_names_are_the_templates():
    said = {}
    for names, default in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+?) \|", PAGE, re.MULTILINE):
        listed = re.findall(r"`(\w+)`", names)
        if listed[0] in template()["Parameters"]:
            said |= dict(zip(listed, default.split(", "), strict=False))
    assert len(said) > 5
    assert said == {name: str(template()["Parameters"][name]["Default"]) for name in said}


def test_every_make_target_of_the_page_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command[1] for command in commands_of("make")}
    assert named <= targets
    assert {"deploy", "dist", "destroy"} <= named


def subcommands(parser):
    (actions,) = [a.choices for a in parser._actions if a.choices and isinstance(a.choices, dict)]
    return actions


def check_options(parser, arguments):
    known = set(parser._option_string_actions)
    for word in arguments:
        assert not word.startswith("--") or word.split("=")[0] in known, word


def test_every_command_of_ours_that_the_page_names_takes_those_options():
    ours = subcommands(_parser())
    deploying = [c for c in commands_of("python") if c[1:3] == ["-m", "infra.deploy"]]
    assert {c[3] for c in deploying} >= {"schedule", "outputs", "policy"}
    for _, _, _, name, *arguments in deploying:
        check_options(ours[name], arguments)
    targets = {"deploy": ours["up"], "destroy": ours["destroy"], "image": build._parser()}
    for command in commands_of("make"):
        for word in command[2:]:
            assert word.startswith("ARGS=")
            check_options(targets[command[1]], shlex.split(word.removeprefix("ARGS=")))
    listed = re.findall(r"`(--[a-z-]+)[^`]*`", PAGE)
    known = {o for parser in ours.values() for o in parser._option_string_actions}
    theirs = {"--platform", "--target", "--additional-python-modules", "--no-index"}
    assert {option for option in listed if option not in theirs} <= known
    persons = subcommands(argument_parser())
    for command in commands_of("extract-jobs"):
        check_options(persons[command[1]], command[2:])


@pytest.mark.parametrize("command", commands_of("aws"), ids=lambda c: " ".join(c[:3]))
def test_every_command_of_the_aws_cli_exists_with_its_options(command):
    _, service, operation, *arguments = command
    if (service, operation) in CUSTOM:
        return
    model = botocore.session.get_session().get_service_model({"s3api": "s3"}.get(service, service))
    made = {xform_name(name, "-"): model.operation_model(name) for name in model.operation_names}
    if (service, operation) == ("ecr", "get-login-password"):
        return
    assert operation in made
    members = set(made[operation].input_shape.members)
    flags = {xform_name(m, "-") for m in members}
    for word in arguments:
        if word.startswith("--"):
            name = word.split("=")[0].removeprefix("--")
            assert name in flags | GLOBAL or name.removeprefix("no-") in flags, word


def test_every_action_of_iam_that_the_page_names_exists():
    named = {text for text in INLINE if re.fullmatch(r"[a-z-]+[a-z]:[A-Z][A-Za-z]+", text)}
    named |= set(re.findall(r'"([a-z]+:[A-Z][A-Za-z]+)"', PAGE))
    assert named
    assert [action for action in named if not resource_forms(action)] == []


PREFIXES = {"stepfunctions": "states"}
"""What actions of a service begin with in IAM, where that is not its name in the AWS CLI."""
COPIES = {
    ("s3", "cp"): "s3:PutObject", ("s3", "rm"): "s3:DeleteObject",
    ("cloudformation", "deploy"): "cloudformation:ExecuteChangeSet",
}  # fmt: skip


def test_every_call_of_the_page_is_in_the_deployers_policies_or_named_beside_them():
    deployer = {
        action
        for part in PARTS
        for statement in deployer_policy(part, "extract-jobs", "123456789012", "eu-central-1")[
            "Statement"
        ]
        for action in statement["Action"]
    }
    named = set(re.findall(r"`([a-z0-9-]+:[A-Z][A-Za-z]+)`", PAGE))
    missing = set()
    for _, service, operation, *_ in commands_of("aws"):
        # An administrator hands out the policies, and the page says that registries are left out.
        if service in {"iam", "ecr"}:
            continue
        name = "".join(part.title() for part in operation.split("-"))
        action = COPIES.get((service, operation), f"{PREFIXES.get(service, service)}:{name}")
        if not any(fnmatchcase(action, given) for given in deployer | named):
            missing.add(action)
    assert missing == set()
    assert "do not cover image registries" in " ".join(PAGE.split())


ROWS = {
    "config manager": {"ConfigManagerRole"},
    "status handler": {"StatusHandlerRole"},
    "reaper": {"ReaperRole"},
    "reaper's schedules": {"ReaperScheduleRole"},
    "state machine": {"StateMachineRole"},
    "workers (one each for Glue, EMR, ECS)": {"GlueRole", "EmrRole", "EcsTaskRole"},
    "ECS execution": {"EcsExecutionRole"},
    "schedule": {"Role"},
}


def test_the_page_says_of_every_role_what_it_may_do():
    section = PAGE.partition("## What each role may do")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| \S", section, re.MULTILINE)
    assert set(rows) - {"role", "---"} == set(ROWS)
    made = {
        name
        for path in (ROOT / "infra" / "template.yaml", ROOT / "infra" / "schedule.yaml")
        for name, resource in template(path)["Resources"].items()
        if resource["Type"] == "AWS::IAM::Role"
    }
    assert made == set().union(*ROWS.values())


def test_the_figures_that_the_page_has_of_the_template_are_its_own():
    kinds = [resource["Type"] for resource in template()["Resources"].values()]
    numbers = {8: "eight", 2: "two"}
    alarms = numbers[kinds.count("AWS::CloudWatch::Alarm")]
    schedules = numbers[kinds.count("AWS::Scheduler::Schedule")]
    assert f"{alarms} alarms at" in PAGE
    first = (ROOT / "docs" / "first-deployment.md").read_text()
    assert f"{alarms} alarms and {schedules} schedules" in first
    assert (ROOT / "infra" / "template.yaml").stat().st_size > 51_200


def test_every_file_and_page_that_the_page_names_exists():
    paths = [
        text for text in INLINE if re.fullmatch(r"(?:infra|tests|docs|entrypoints)/[\w./-]+", text)
    ]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([\w-]+\.md)(?:#([\w-]+))?\)", PAGE)
    for page, anchor in links:
        text = (ROOT / "docs" / page).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in slugs, (page, anchor)


def the_first_table():
    """Return the walk's config, as a person would have filled it in, and its secret's text."""
    section = PAGE.partition("## The first table")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    (secret,) = re.findall(r"--secret-string \\\n\s*'(.*?)'", section)
    return textwrap.dedent(text).replace("$DATA", DATA), secret


def test_the_first_tables_config_is_valid_and_its_secret_is_one_that_workers_read():
    text, secret = the_first_table()
    config = load_config(text.encode(), "sales.yml")
    (spec,) = specs_for(
        config, list(config.tables), run_id_for=lambda _: "r", overrides={},
        report_base="s3://state/work/reports", tracking_table="t",
    )  # fmt: skip
    assert spec.target.catalog is not None
    assert spec.connection.secret_id is not None
    login = from_secret(secret, "the page", ENGINES[config.source.type])
    assert login.keys() == {"host", "port", "user", "password", "database"}
    # What it needs, the stack's defaults give: nothing is set for the walk.
    arn = f"arn:aws:secretsmanager:eu-central-1:123456789012:secret:{spec.connection.secret_id}-AbC"
    assert allows(WORKER, "secretsmanager:GetSecretValue", arn)
    assert allows(WORKER, "s3:PutObject", f"arn:aws:s3:::{spec.target.uri.removeprefix('s3://')}/x")
    database = f"arn:aws:glue:eu-central-1:123456789012:database/{spec.target.catalog.database}"
    for action in ("glue:CreateDatabase", "glue:GetDatabase", "glue:CreateTable"):
        assert allows(WORKER, action, database), action
    (job,) = job_settings(config, list(config.tables), {})
    assert job.job_type == "glue"
    assert Resolver().holds("HasGlue")
