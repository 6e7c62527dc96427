"""The templates beside the code that they are for: roles, names, alarms, suppressions."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import pytest

from entrypoints import reap_extract_job_runs as reaper
from extract_jobs.reporting.report import Report
from extract_jobs.storage import open_storage
from extract_jobs.storage.s3_client import PERMISSIONS
from extract_jobs.tracking.finished_attempt import count_outcome
from extract_jobs.tracking.retry_policy import Decision
from extract_jobs.tracking.table import EXECUTION_INDEX, TrackedRun, Tracking
from extract_jobs.worker import LoggedProgress
from infra.build import HANDLERS
from tests.support.permissions import (
    NEEDED,
    SEEN,
    WORKER,
    WORKER_ROLES,
    Resolver,
    allowed,
    allows,
    resource_forms,
    statements,
    template,
)
from tests.support.specs import make_spec

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "infra").glob("*.yaml"))
ARTIFACTS = ROOT / "infra" / "artifacts.yaml"


@pytest.mark.parametrize("role", sorted(allowed()))
def test_a_role_allows_what_is_called_or_needed_and_nothing_else(role):
    expected = set(SEEN.get(role, ())) | set(NEEDED[role])
    assert allowed()[role] - expected == set(), "allowed, and in neither table"
    assert expected - allowed()[role] == set(), "in a table, and not allowed"
    assert not set(SEEN.get(role, ())) & set(NEEDED[role]), "in both tables"


def test_the_tables_know_every_role_and_no_other():
    assert set(NEEDED) == set(allowed())
    assert set(SEEN) <= set(allowed())


SYNC_RULES = {
    "ecs:runTask.sync": "StepFunctionsGetEventsForECSTaskRule",
    "elasticmapreduce:addStep.sync": "StepFunctionsGetEventForEMRAddJobFlowStepsRule",
    "emr-serverless:startJobRun.sync": "StepFunctionsGetEventsForEMRServerlessJobRule",
    "glue:startJobRun.sync": None,
}
"""Rule by which Step Functions hears of a job's end; Glue is polled.

https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html"""
SERVICES = {
    "Glue": ("yes", "no"),
    "Emr": ("yes", "no"),
    "Ecs": ("yes", "no"),
    "EmrClusterArns": ("", "arn:aws:elasticmapreduce:eu-central-1:123456789012:cluster/j-1"),
    "KmsKey": ("none", "create"),
}


def combinations():
    """Return every combination of the parameters that switch services on and off."""
    return [dict(zip(SERVICES, values, strict=True)) for values in product(*SERVICES.values())]


def test_the_machines_role_may_hear_of_every_kind_of_job_whatever_is_deployed():
    text = (ROOT / "asl/extract_pipeline.asl.json").read_text()
    assert set(re.findall(r":::([\w-]+:\w+\.sync)", text)) == set(SYNC_RULES)
    rules = [rule for rule in SYNC_RULES.values() if rule]
    for given in ({}, *combinations()):
        for rule in rules:
            arn = f"arn:aws:events:eu-central-1:123456789012:rule/{rule}"
            for action in ("events:PutRule", "events:PutTargets", "events:DescribeRule"):
                assert allows("StateMachineRole", action, arn, given), (given, rule, action)


def test_an_execution_that_runs_during_an_update_may_start_what_it_was_given():
    other = "arn:aws:s3:::given-ArtifactsBucket/another-version/entrypoints/emr.py"
    assert allows(WORKER, "s3:GetObject", other)
    older = "arn:aws:ecs:eu-central-1:123456789012:task-definition/extract-jobs:1"
    assert allows("StateMachineRole", "ecs:RunTask", older, {"Ecs": "yes"})
    stranger = older.replace("/extract-jobs:", "/extract-jobs-2:")
    assert not allows("StateMachineRole", "ecs:RunTask", stranger, {"Ecs": "yes"})
    assert template()["Resources"]["EcsTaskDefinition"]["UpdateReplacePolicy"] == "Retain"


ACCOUNT = "eu-central-1:123456789012"
BUCKETS = "arn:aws:s3:::extract-jobs"
SECRET = f"arn:aws:secretsmanager:{ACCOUNT}:secret:lake"
PARAMETER = f"arn:aws:ssm:{ACCOUNT}:parameter/lake"


def of_source(name):
    """Return what belongs to a source: actions and resources, by the role that may need them."""
    data = f"{BUCKETS}-data-123456789012-eu-central-1"
    work = f"{BUCKETS}-state-123456789012-eu-central-1/work/{name}/e-1"
    state = f"{data}/_extract/{name}/t"
    return [
        (WORKER, "s3:GetObject", f"{data}/raw/{name}/t/a.parquet"),
        (WORKER, "s3:DeleteObject", f"{data}/raw/{name}/t/a.parquet"),
        (WORKER, "s3:PutObject", f"{state}/commits/1.json"),
        (WORKER, "s3:GetObject", f"{work}/specs/t.json"),
        (WORKER, "s3:PutObject", f"{work}/reports/t.json"),
        *((role, "secretsmanager:GetSecretValue", f"{SECRET}/{secret}-AbCdEf")
          for role in (WORKER, "ConfigManagerRole") for secret in (name, f"{name}/replica")),
        *((role, "ssm:GetParameter", f"{PARAMETER}/{parameter}")
          for role in (WORKER, "ConfigManagerRole") for parameter in (name, f"{name}/replica")),
        *((role, "s3:GetObject", f"{state}/commits/1.json") for role in FUNCTIONS),
        *((role, "s3:PutObject", f"{state}/claims/r/1.json") for role in FUNCTIONS),
    ]  # fmt: skip


def test_functions_read_no_data_and_secrets_only_to_list_tables():
    data = f"{BUCKETS}-data-123456789012-eu-central-1/raw/sales/t/a.parquet"
    secrets = [one for one in of_source("sales") if one[1].startswith(("secrets", "ssm"))]
    for given in ({}, {"ListTables": "yes"}, {"OnlySource": "sales", "ListTables": "yes"}):
        for role in FUNCTIONS:
            for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
                assert not allows(role, action, data, given), (role, action, given)
            for _, action, resource in secrets:
                lists = role == "ConfigManagerRole" and "ListTables" in given
                assert allows(role, action, resource, given) == lists, (role, action, given)


FUNCTIONS = ("ConfigManagerRole", "StatusHandlerRole", "ReaperRole")


def test_the_roles_of_a_source_with_a_stack_of_its_own_reach_nothing_of_others():
    whole = {"ListTables": "yes"}
    given = whole | {"OnlySource": "hr"}
    for role, action, resource in of_source("hr"):
        assert allows(role, action, resource, given), (role, action, resource)
        assert allows(role, action, resource, whole), (role, action, resource)
    others = [*of_source("sales"), *of_source("hr-eu"), *of_source("h")]
    found = [one for one in others if allows(*one, given)]
    assert found == []
    assert all(allows(*one, whole) for one in others)


def test_a_failed_execution_may_be_redriven_with_its_children():
    child = "arn:aws:states:eu-central-1:123456789012:execution:extract-jobs/ExtractTables:1"
    assert allows("StateMachineRole", "states:RedriveExecution", child)


def job_defaults(given):
    """Return what the config manager is told of the job services, with these parameters."""
    manager = Resolver(given).resources()["ConfigManager"]
    return json.loads(manager["Environment"]["Variables"]["JOB_DEFAULTS"])


def test_emr_gets_its_program_wherever_emr_may_run():
    assert {given["Emr"] for given in combinations()} == {"yes", "no"}
    for given in combinations():
        for image in ("", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/x:1"):
            emr = job_defaults({**given, "EmrImage": image})["emr"]
            serverless, clusters = given["Emr"] == "yes", bool(given["EmrClusterArns"])
            assert ("entry_point" in emr) == (serverless or clusters)
            assert ("application_id" in emr) == ("execution_role_arn" in emr) == serverless
            # Clusters have no image: there the archive is the only way.
            assert ("archive" in emr) == (clusters or (serverless and not image))


def test_a_clusters_instance_profile_can_be_given_what_workers_may():
    assert "WorkerPolicyArn" in template()["Outputs"]
    archive = "arn:aws:s3:::given-ArtifactsBucket/x/extract_jobs-1-emr.tar.gz"
    assert allows(WORKER, "s3:GetObject", archive)


def test_python_of_emrs_image_is_named_to_spark_and_only_where_there_is_one():
    for image in ("", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/x:1"):
        made = Resolver({"Emr": "yes", "EmrImage": image}).resources()["EmrApplication"]
        (settings,) = made["RuntimeConfiguration"]
        python = settings["Properties"].get("spark.executorEnv.PYSPARK_PYTHON")
        assert python == ("/opt/environment/bin/python" if image else None)
        assert not image or python in (ROOT / "infra" / "Dockerfile").read_text()


def test_glue_logs_where_days_are_kept():
    made = Resolver().resources()
    prefix = made["GlueJob"]["DefaultArguments"]["--custom-logGroup-prefix"]
    days = {r["LogGroupName"]: r["RetentionInDays"] for r in made.values() if "LogGroupName" in r}
    assert days[f"{prefix}/error"] == days[f"{prefix}/output"] == "90"
    for group in (f"{prefix}/error", f"{prefix}/output"):
        arn = f"arn:aws:logs:eu-central-1:123456789012:log-group:{group}"
        assert allows("GlueRole", "logs:PutLogEvents", arn)


def test_what_waits_on_a_tasks_disk_is_under_the_key():
    made = Resolver({"Ecs": "yes", "KmsKey": "create"}).resources()
    storage = made["EcsCluster"]["Configuration"]["ManagedStorageConfiguration"]
    assert storage == {"FargateEphemeralStorageKmsKeyId": "Key.Arn"}
    fargate = [s for s in made["Key"]["KeyPolicy"]["Statement"]
               if s["Principal"] == {"Service": "fargate.amazonaws.com"}]  # fmt: skip
    assert {s["Action"] for s in fargate} == {
        "kms:GenerateDataKeyWithoutPlaintext", "kms:CreateGrant",
    }  # fmt: skip
    for statement in fargate:
        cluster = statement["Condition"]["StringEquals"][
            "kms:EncryptionContext:aws:ecs:clusterName"
        ]
        assert cluster == made["EcsCluster"]["ClusterName"]
    assert "Configuration" not in Resolver({"Ecs": "yes"}).resources()["EcsCluster"]


def _default_encryption(properties):
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    return rule["ServerSideEncryptionByDefault"].get("KMSMasterKeyID")


KEY_OF = {
    "AWS::S3::Bucket": _default_encryption,
    "AWS::DynamoDB::Table": lambda p: p.get("SSESpecification", {}).get("KMSMasterKeyId"),
    "AWS::Logs::LogGroup": lambda p: p.get("KmsKeyId"),
    "AWS::Lambda::Function": lambda p: p.get("KmsKeyArn"),
    "AWS::SNS::Topic": lambda p: p.get("KmsMasterKeyId"),
    "AWS::ECS::Cluster": lambda p: (
        p.get("Configuration", {})
        .get("ManagedStorageConfiguration", {})
        .get("FargateEphemeralStorageKmsKeyId")
    ),
}
"""Where each kind of thing that keeps data names its key. Dead letters, schedules and executions
hold names and URIs alone; EMR's disks are left to `infra.finishing`, Glue's to the next test."""
SERVICES_ON = {"Emr": "yes", "Ecs": "yes"}


@pytest.mark.parametrize("key", ["create", "arn:aws:kms:eu-central-1:123456789012:key/k", "none"])
def test_with_a_key_all_that_keeps_data_is_under_it_and_without_one_nothing(key):
    made = Resolver({**SERVICES_ON, "KmsKey": key}).resources()
    expected = {"create": "Key.Arn", "none": None}.get(key, key)
    kinds = {name: template()["Resources"][name]["Type"] for name in made}
    assert set(KEY_OF) <= set(kinds.values())
    found = {name: KEY_OF[kind](made[name]) for name, kind in kinds.items() if kind in KEY_OF}
    assert {name for name, value in found.items() if value != expected} == set()


def test_with_a_key_glue_encrypts_what_it_writes_for_itself():
    assert "SecurityConfiguration" not in Resolver().resources()["GlueJob"]
    made = Resolver({"KmsKey": "create"}).resources()
    assert made["GlueJob"]["SecurityConfiguration"] == "GlueSecurity"
    encryption = made["GlueSecurity"]["EncryptionConfiguration"]
    assert encryption.keys() == {"CloudWatchEncryption", "JobBookmarksEncryption", "S3Encryptions"}
    (files,) = encryption.pop("S3Encryptions")
    assert {part["KmsKeyArn"] for part in (files, *encryption.values())} == {"Key.Arn"}
    logs = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws-glue/jobs/extract-jobs/error"
    assert allows("GlueRole", "logs:AssociateKmsKey", logs, {"KmsKey": "create"})


def test_with_a_key_the_artifacts_are_under_it_too():
    for key, expected in (("none", None), ("arn:k", "arn:k")):
        bucket = Resolver({"KmsKey": key}, ARTIFACTS).resources()["Artifacts"]
        assert _default_encryption(bucket) == expected


WORK = "arn:aws:s3:::extract-jobs-state-123456789012-eu-central-1/work"


def test_workers_write_reports_and_nothing_that_the_state_machine_trusts():
    execution = f"{WORK}/sales/20250301T000000Z-0123456789ab"
    report = f"{execution}/reports/sales/public.t/r/attempt-1.json"
    assert allows(WORKER, "s3:PutObject", report)
    for name in ("specs/r.json", "tables_to_extract.json", "config.yml", "event.json"):
        assert allows(WORKER, "s3:GetObject", f"{execution}/{name}")
        assert not allows(WORKER, "s3:PutObject", f"{execution}/{name}")
        # A source may be called so too.
        assert not allows(WORKER, "s3:PutObject", f"{WORK}/reports/20250301T000000Z-01/{name}")
    assert not allows(WORKER, "s3:PutObject", f"{WORK.removesuffix('work')}config/sales.yml")


def test_glue_joins_only_the_subnet_and_groups_of_its_connection():
    given = {"VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2", "SubnetAvailabilityZone": "a"}
    arn = "arn:aws:ec2:eu-central-1:123456789012:"
    action = "ec2:CreateNetworkInterface"
    assert allows("GlueRole", action, f"{arn}subnet/subnet-1", given)
    assert not allows("GlueRole", action, f"{arn}subnet/subnet-2", given)
    for groups, expected in (
        ("none", ["WorkerSecurityGroup.GroupId"]),
        ("sg-1,sg-2", ["sg-1", "sg-2"]),
    ):
        role = Resolver({**given, "SecurityGroupIds": groups}).resources()["GlueRole"]
        (joined,) = [s for s in statements({"Properties": role}) if s["Sid"] == "JoinItsGroups"]
        assert joined["Condition"] == {"StringEquals": {"ec2:SecurityGroupID": expected}}


def test_tasks_pull_from_one_repository_if_it_is_known():
    pull, role = "ecr:BatchGetImage", "EcsExecutionRole"
    central = "arn:aws:ecr:us-east-1:999999999999:repository/extract-jobs"
    own = "arn:aws:ecr:eu-central-1:123456789012:repository/extract-jobs"
    given = {"Ecs": "yes", "EcsRepositoryArn": central}
    assert allows(role, pull, central, given)
    assert not allows(role, pull, own, given)
    assert allows(role, pull, own, {"Ecs": "yes"})
    assert not allows(role, pull, central, {"Ecs": "yes"})


def test_pid_1_of_a_task_passes_signals_on():
    made = Resolver({"Ecs": "yes"}).resources()["EcsTaskDefinition"]
    (container,) = made["ContainerDefinitions"]
    assert container["LinuxParameters"] == {"InitProcessEnabled": True}


def test_other_keys_may_be_used_by_all_that_read_or_write_the_data_bucket():
    key = "arn:aws:kms:eu-central-1:123456789012:key/other"
    for role in (WORKER, "StatusHandlerRole", "ReaperRole", "ConfigManagerRole"):
        for action in ("kms:Decrypt", "kms:GenerateDataKey"):  # claims are written by all of them
            assert allows(role, action, key, {"OtherKeyArns": key}), (role, action)
            assert not allows(role, action, key), (role, action)


def test_dns_servers_of_ones_own_are_reached_by_udp_and_tcp():
    for servers, expected in (("", []), ("10.9.0.0/24", ["tcp", "udp"])):
        made = Resolver({"VpcId": "vpc-1", "DnsCidr": servers}).resources()
        found = [rule for rule in made.values() if rule.get("FromPort") == 53]
        assert sorted(rule["IpProtocol"] for rule in found) == expected
        assert {rule["CidrIp"] for rule in found} <= {servers}


def test_an_event_that_a_schedule_cannot_start_is_kept_and_reported():
    made = Resolver().resources()
    for name in ("ReaperSchedule", "SilentJobsSchedule"):
        assert made[name]["Target"]["DeadLetterConfig"] == {"Arn": "DeadLetters.Arn"}
    assert allows("ReaperScheduleRole", "sqs:SendMessage", "DeadLetters.Arn")
    assert made["ScheduleFailed"]["Dimensions"][0]["Value"] == "DeadLetters.QueueName"
    text = (ROOT / "infra" / "schedule.yaml").read_text()
    assert text.count("${Pipeline}-DeadLettersArn") == 2
    exports = [o["Export"]["Name"]["Sub"] for o in template()["Outputs"].values() if "Export" in o]
    assert set(re.findall(r"\$\{Pipeline\}-\w+", text)) == {
        name.replace("AWS::StackName", "Pipeline") for name in exports
    }


def test_silent_jobs_are_looked_for_every_few_minutes():
    made = Resolver().resources()["SilentJobsSchedule"]
    assert made["ScheduleExpression"] == "rate(5 minutes)"
    assert made["Target"]["Arn"] == "Reaper.Arn"
    assert json.loads(made["Target"]["Input"]) == {"action": reaper.STOP_SILENT}


def test_every_way_in_which_an_execution_fails_has_an_alarm():
    metrics = {a["MetricName"] for a in Resolver().resources().values()
               if a.get("Namespace") == "AWS/States"}  # fmt: skip
    assert metrics == {"ExecutionsFailed", "ExecutionsAborted", "ExecutionsTimedOut"}


def test_tasks_carry_the_tags_of_their_definition():
    text = (ROOT / "asl/extract_pipeline.asl.json").read_text()
    assert '"PropagateTags": "TASK_DEFINITION"' in text
    task = "arn:aws:ecs:eu-central-1:123456789012:task/EcsCluster/1"
    assert allows("StateMachineRole", "ecs:TagResource", task, {"Ecs": "yes"})


ALL_ON = {
    "Emr": "yes", "Ecs": "yes", "VpcId": "vpc-1", "SubnetIds": "subnet-1",
    "KmsKey": "arn:aws:kms:eu-central-1:123456789012:key/k",
    "EmrClusterArns": "arn:aws:elasticmapreduce:eu-central-1:123456789012:cluster/j-1",
    "FilesSourceArns": "arn:aws:s3:::drops,arn:aws:s3:::drops/*",
    "RdsIamResources": "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-1/reader",
}  # fmt: skip


def granted():
    """Yield role, action and resources of every statement, as CloudFormation fills them in."""
    for name, properties in Resolver(ALL_ON).resources().items():
        if "AssumeRolePolicyDocument" in properties or "ManagedPolicy" in name or name == WORKER:
            for statement in statements({"Properties": properties}):
                actions, resources = statement["Action"], statement["Resource"]
                for action in [actions] if isinstance(actions, str) else actions:
                    yield name, action, [resources] if isinstance(resources, str) else resources


def test_every_action_exists_and_one_of_its_resources_is_of_its_kind():
    unknown, misfits = [], []
    for role, action, resources in granted():
        forms = resource_forms(action)
        arns = [r for r in resources if r == "*" or r.startswith("arn:")]
        # What ends in * is of a group's streams too.
        arns += [f"{arn}:log-stream:*" for arn in arns if arn.endswith("*") and arn != "*"]
        if not forms:
            unknown.append((role, action))
        elif "*" in arns:
            misfits += [] if "*" in forms else [(role, action, "*")]
        # Either may be the wider one.
        elif arns and not any(
            fnmatchcase(arn, form) or fnmatchcase(form, arn)
            for arn in arns
            for form in forms - {"*"}
        ):
            misfits.append((role, action, arns))
    assert unknown == []
    # Children of a distributed Map are named <machine>/<label>:<id>.
    assert [m for m in misfits if not m[1].startswith("states:")] == []


def test_workers_may_use_glues_rest_endpoint_and_read_the_secret_of_another_catalog():
    on = "arn:aws:glue:eu-central-1:123456789012:"
    for action in ("GetCatalog", "GetDatabase", "GetTable", "CreateTable", "UpdateTable"):
        assert allows(WORKER, f"glue:{action}", f"{on}catalog")
    secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lake/{}-a1b2c3"
    read = "secretsmanager:GetSecretValue"
    assert allows(WORKER, read, secret.format("catalog"))
    alone = {"OnlySource": "hr"}
    assert allows(WORKER, read, secret.format("hr/catalog"), alone)
    assert not allows(WORKER, read, secret.format("catalog"), alone)


GRANTED_FOR = {
    "glue:GetDatabase": ("database", "DESCRIBE"),
    "glue:CreateTable": ("database", "CREATE_TABLE"),
    "glue:GetTable": ("tables", "DESCRIBE"),
    "glue:UpdateTable": ("tables", "ALTER"),
    "glue:GetPartitions": ("tables", "SELECT"),
    "glue:BatchCreatePartition": ("tables", "INSERT"),
    "glue:BatchDeletePartition": ("tables", "DELETE"),
}
"""What Lake Formation asks for each call, and of what."""


@pytest.mark.parametrize("location", ["", "arn:aws:s3:::lake"])
def test_lake_formation_grants_what_workers_call_in_a_database_that_exists(location):
    role = "arn:aws:iam::123456789012:role/extract-jobs-GlueRole-x"
    given = {"Role": role, "Database": "lake_shop", "Location": location}
    granted = {}
    for properties in Resolver(given, ROOT / "infra" / "lake_formation.yaml").resources().values():
        assert properties["Principal"] == {"DataLakePrincipalIdentifier": role}
        assert properties["PermissionsWithGrantOption"] == []
        ((kind, of),) = properties["Resource"].items()
        assert of.pop("CatalogId") == "123456789012"
        granted[kind] = (of, set(properties["Permissions"]))
    assert granted.pop("Database") == (
        {"Name": "lake_shop"}, {what for of, what in GRANTED_FOR.values() if of == "database"}
    )  # fmt: skip
    assert granted.pop("Table") == (
        {"DatabaseName": "lake_shop", "TableWildcard": {}},
        {what for of, what in GRANTED_FOR.values() if of == "tables"},
    )
    expected = {"DataLocation": ({"ResourceArn": location}, {"DATA_LOCATION_ACCESS"})}
    assert granted == (expected if location else {})
    calls = {action for action in allowed()[WORKER] if action.startswith("glue:")}
    assert calls - {"glue:GetCatalog", "glue:CreateDatabase"} == set(GRANTED_FOR)


def test_workers_may_make_every_call_that_storage_makes():
    needed = {part.strip() for text in PERMISSIONS.values() for part in text.split(" and ")}
    assert needed <= allowed()[WORKER]
    resources = template()["Resources"]
    for role in WORKER_ROLES:
        assert resources[role]["Properties"]["ManagedPolicyArns"] == [{"Ref": WORKER}]


def test_only_actions_without_a_resource_are_allowed_on_all_resources():
    anywhere = {
        action
        for resource in template()["Resources"].values()
        if resource["Type"] in {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}
        for statement in statements(resource)
        if statement["Resource"] == "*"
        for action in ([statement["Action"]] if isinstance(statement["Action"], str)
                       else statement["Action"])
    }  # fmt: skip
    services = {action.split(":")[0] for action in anywhere}
    assert services == {"ecr", "ec2", "ecs", "logs", "xray"}
    assert {action for action in anywhere if action.startswith("ecs")} == {"ecs:ListTasks"}
    assert not [action for action in anywhere if "*" in action]
    assert {a for a in anywhere if a.startswith("ec2")} <= {
        a
        for role in ("GlueRole", "ConfigManagerRole")
        for a in allowed()[role]
        if a.startswith("ec2:Describe")
    }


def test_every_role_can_be_bounded_and_trusts_one_service():
    roles = {name: resource["Properties"] for name, resource in template()["Resources"].items()
             if resource["Type"] == "AWS::IAM::Role"}  # fmt: skip
    assert set(roles) >= {"GlueRole", "StateMachineRole"}
    for name, properties in roles.items():
        assert properties["PermissionsBoundary"]["If"][0] == "HasBoundary", name
        (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
        assert list(trust["Principal"]) == ["Service"], name


def test_a_function_is_given_what_it_reads_and_nothing_else():
    functions = [r["Properties"] for r in template()["Resources"].values()
                 if r["Type"] == "AWS::Lambda::Function"]  # fmt: skip
    assert {f["Handler"] for f in functions} == {f"{name}.handler" for name in HANDLERS}
    for function in functions:
        module = function["Handler"].removesuffix(".handler")
        assert function["Code"]["S3Key"]["Sub"].endswith(f"/lambda/{module}.zip")
        source = (ROOT / "entrypoints" / f"{module}.py").read_text()
        read = re.findall(r'environ(?:ment)?(?:\.get\(|\[)"([A-Z_]+)"', source)
        assert set(function.get("Environment", {}).get("Variables", {})) == set(read)


def counted(say, capsys):
    """Return the metrics of a line that the code writes: name, by namespace and dimension."""
    capsys.readouterr()
    say()
    line = json.loads(capsys.readouterr().out)
    (metrics,) = line["_aws"]["CloudWatchMetrics"]
    return {
        (metrics["Namespace"], metric["Name"], *((name, line[name]) for name in dimensions))
        for metric in metrics["Metrics"]
        for dimensions in metrics["Dimensions"]
    }


def test_alarms_watch_what_is_counted(tmp_path, capsys):
    resources = template()["Resources"]
    table = resources["TrackingTable"]["Properties"]["TableName"]
    tracking = Tracking(None, "stack", lambda: datetime(2025, 3, 1, tzinfo=UTC))
    settings = reaper.Settings("arn", str(tmp_path), timedelta(hours=26))
    run = TrackedRun(table_id="sales/public.t", run_id="r")
    found = counted(lambda: count_outcome(Decision("failed"), run, tracking), capsys) | counted(
        lambda: reaper.count_overdue(settings, tracking=tracking, open_storage=open_storage), capsys
    )
    progress = LoggedProgress(make_spec(tracking_table="stack"))
    report = Report(status="succeeded", run_id="r", attempt=1, source_name="sales",
                    extract_table="t", target_uri="x")  # fmt: skip
    found |= counted(lambda: progress.reported(report), capsys)
    alarms = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    own = [alarm for alarm in alarms if not alarm["Namespace"].startswith("AWS/")]
    names = ["CatalogFailed", "TablesFailed", "TablesOverdue"]
    assert sorted(alarm["MetricName"] for alarm in own) == names
    for alarm in own:
        (dimension,) = alarm["Dimensions"]
        # The stack's name, to which the table's is compared.
        assert dimension["Value"] == table == {"Ref": "AWS::StackName"}
        watched = (alarm["Namespace"], alarm["MetricName"], (dimension["Name"], "stack"))
        assert watched in found


def test_the_tracking_table_is_the_one_that_the_code_knows():
    table = template()["Resources"]["TrackingTable"]["Properties"]
    assert [k["AttributeName"] for k in table["KeySchema"]] == ["table_id", "run_id"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == EXECUTION_INDEX
    assert [k["AttributeName"] for k in index["KeySchema"]] == ["execution_id", "table_id"]


def test_what_holds_data_outlives_the_stack():
    resources = template()["Resources"]
    holding = {"AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::DynamoDB::Table", "AWS::KMS::Key"}
    assert holding <= {resource["Type"] for resource in resources.values()}
    for name, resource in resources.items():
        if resource["Type"] in holding:
            # Except where the stack was never finished: an empty bucket would be in the way.
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate", name
            assert resource["UpdateReplacePolicy"] == "Retain", name


def test_uploads_are_left_alone_for_longer_than_a_commit_may_need_them():
    buckets = [r for r in template()["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert len(buckets) == 2
    for bucket in buckets:
        rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
        days = [r["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] for r in rules
                if "AbortIncompleteMultipartUpload" in r]  # fmt: skip
        assert days == [14]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_suppression_says_why(path):
    text = path.read_text()
    skips = re.findall(r"- id: CKV_\w+\n +comment: (\S.*)", text)
    assert len(skips) == text.count("- id: CKV_")
    assert all(len(comment) > 40 for comment in skips)
    for position in (m.start() for m in re.finditer("ignore_checks", text)):
        assert text[:position].splitlines()[-2].lstrip().startswith("#")
