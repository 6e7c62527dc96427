"""The policy of whoever deploys: what CloudFormation and `infra.deploy` call, and no data.

It is for a person or a pipeline, or for the role that CloudFormation assumes for them. It reads no
table's rows, no secret and no item. Through the roles that it creates it could, as everyone can who
may create roles: `PermissionsBoundary` limits those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.images import partition_of

Statement = dict[str, Any]

LONGEST = 6144
"""Maximum characters of a managed policy, without blanks."""


def deployer_policy(part: str, stack: str, account: str, region: str) -> Statement:
    """Return the policy document for deploying one stack, its artifacts and its schedules.

    Args:
        part: One of `PARTS`; one policy cannot hold both. Whoever deploys needs both.
        stack: The stack's name.
        account: Where it is deployed.
        region: Where it is deployed.
    """
    partition = partition_of(region)

    def arns(service: str, *names: str) -> list[str]:
        where = {"iam": f":{account}", "s3": ":"}.get(service, f"{region}:{account}")
        return [f"arn:{partition}:{service}:{where}:{name}" for name in names]

    resources = {
        "CloudFormation": arns("cloudformation", f"stack/{stack}*/*"),
        "Buckets": arns("s3", f"{stack}-*"),
        "Artifacts": arns("s3", f"{stack}-artifacts-*/*"),
        "Roles": arns("iam", f"role/{stack}-*", f"policy/{stack}-*"),
        "LinkedRoles": arns("iam", "role/aws-service-role/*"),
        "Functions": arns("lambda", f"function:{stack}-*"),
        "StateMachine": arns("states", f"stateMachine:{stack}"),
        "TrackingTable": arns("dynamodb", f"table/{stack}"),
        "Logs": arns("logs", f"log-group:/aws*/{stack}*"),
        "Schedules": arns("scheduler", f"schedule/default/{stack}-*"),
        "Topic": arns("sns", f"{stack}-*"),
        "Queue": arns("sqs", f"{stack}-*"),
        "Alarms": arns("cloudwatch", f"alarm:{stack}-*"),
        "Glue": arns("glue", "catalog", f"connection/{stack}", f"job/{stack}"),
        "Ecs": arns("ecs", f"cluster/{stack}", f"task-definition/{stack}:*"),
        "EmrServerless": arns("emr-serverless", "/applications/*"),
        "Keys": arns("kms", "key/*"),
        "UnusedKeys": arns("kms", "key/*"),
        "Anywhere": ["*"],
        "Network": ["*"],
    }
    statements = []
    for name, actions in PARTS[part].items():
        statement: Statement = {
            "Sid": name, "Effect": "Allow", "Action": actions.split(), "Resource": resources[name],
        }  # fmt: skip
        statements.append(statement | _CONDITIONS.get(name, {}))
    return {"Version": "2012-10-17", "Statement": statements}


_CONDITIONS: Mapping[str, Statement] = {
    "LinkedRoles": {"Condition": {"StringLike": {
        "iam:AWSServiceName": ["ecs.amazonaws.com", "ops.emr-serverless.amazonaws.com"]
    }}},
    # A first deployment that fails deletes the key that it created. Nobody deletes one directly.
    "UnusedKeys": {"Condition": {"ForAnyValue:StringEquals": {
        "aws:CalledVia": "cloudformation.amazonaws.com"
    }}},
}  # fmt: skip

PARTS: Mapping[str, Mapping[str, str]] = {
    "stack": {
        "CloudFormation": """
            cloudformation:CreateStack cloudformation:UpdateStack
            cloudformation:DeleteStack cloudformation:DescribeStacks
            cloudformation:DescribeStackEvents cloudformation:CreateChangeSet
            cloudformation:DescribeChangeSet cloudformation:ExecuteChangeSet
            cloudformation:DeleteChangeSet cloudformation:GetTemplate
            cloudformation:TagResource""",
        "Buckets": """
            s3:CreateBucket s3:DeleteBucket s3:ListBucket s3:GetBucket*
            s3:PutBucket* s3:DeleteBucketPolicy s3:Get*Configuration
            s3:PutEncryptionConfiguration s3:PutLifecycleConfiguration
            s3:TagResource""",
        "Artifacts": """
            s3:GetObject s3:PutObject s3:AbortMultipartUpload""",
        "Roles": """
            iam:CreateRole iam:DeleteRole iam:GetRole iam:UpdateRole
            iam:UpdateRoleDescription iam:UpdateAssumeRolePolicy iam:TagRole
            iam:UntagRole iam:PutRolePolicy iam:GetRolePolicy iam:DeleteRolePolicy
            iam:ListRolePolicies iam:ListRoleTags iam:ListAttachedRolePolicies
            iam:AttachRolePolicy iam:DetachRolePolicy iam:PutRolePermissionsBoundary
            iam:DeleteRolePermissionsBoundary iam:PassRole iam:CreatePolicy
            iam:DeletePolicy iam:GetPolicy iam:GetPolicyVersion
            iam:ListPolicyVersions iam:CreatePolicyVersion iam:DeletePolicyVersion
            iam:ListEntitiesForPolicy iam:TagPolicy iam:UntagPolicy""",
        "LinkedRoles": """
            iam:CreateServiceLinkedRole""",
        "Anywhere": """
            cloudformation:GetTemplateSummary cloudformation:ValidateTemplate
            cloudformation:ListExports""",
    },
    "services": {
        "Functions": """
            lambda:CreateFunction lambda:DeleteFunction lambda:GetFunction
            lambda:GetFunctionConfiguration lambda:UpdateFunctionCode
            lambda:UpdateFunctionConfiguration lambda:GetFunctionCodeSigningConfig
            lambda:GetFunctionRecursionConfig lambda:GetRuntimeManagementConfig
            lambda:ListTags lambda:TagResource lambda:UntagResource""",
        "StateMachine": """
            states:CreateStateMachine states:UpdateStateMachine
            states:DeleteStateMachine states:DescribeStateMachine
            states:ListTagsForResource states:TagResource states:UntagResource""",
        "TrackingTable": """
            dynamodb:CreateTable dynamodb:UpdateTable dynamodb:DeleteTable
            dynamodb:DescribeTable dynamodb:DescribeContinuousBackups
            dynamodb:UpdateContinuousBackups dynamodb:DescribeTimeToLive
            dynamodb:DescribeContributorInsights
            dynamodb:DescribeKinesisStreamingDestination dynamodb:GetResourcePolicy
            dynamodb:ListTagsOfResource dynamodb:TagResource dynamodb:UntagResource""",
        "Logs": """
            logs:CreateLogGroup logs:DeleteLogGroup logs:PutRetentionPolicy
            logs:DeleteRetentionPolicy logs:AssociateKmsKey logs:DisassociateKmsKey
            logs:ListTagsForResource logs:TagResource logs:UntagResource""",
        "Schedules": """
            scheduler:CreateSchedule scheduler:UpdateSchedule
            scheduler:DeleteSchedule scheduler:GetSchedule""",
        "Topic": """
            sns:CreateTopic sns:DeleteTopic sns:GetTopicAttributes
            sns:SetTopicAttributes sns:Subscribe sns:ListSubscriptionsByTopic
            sns:GetDataProtectionPolicy sns:ListTagsForResource sns:TagResource
            sns:UntagResource""",
        "Queue": """
            sqs:CreateQueue sqs:DeleteQueue sqs:GetQueueAttributes
            sqs:SetQueueAttributes sqs:GetQueueUrl sqs:ListQueueTags sqs:TagQueue
            sqs:UntagQueue""",
        "Alarms": """
            cloudwatch:PutMetricAlarm cloudwatch:DeleteAlarms
            cloudwatch:DescribeAlarms cloudwatch:ListTagsForResource
            cloudwatch:TagResource cloudwatch:UntagResource""",
        "Glue": """
            glue:CreateJob glue:UpdateJob glue:DeleteJob glue:GetJob
            glue:CreateConnection glue:UpdateConnection glue:DeleteConnection
            glue:GetConnection glue:GetTags glue:TagResource glue:UntagResource""",
        "Ecs": """
            ecs:DeleteCluster ecs:DescribeClusters ecs:UpdateCluster
            ecs:UpdateClusterSettings ecs:RegisterTaskDefinition
            ecs:ListTagsForResource ecs:TagResource ecs:UntagResource""",
        "EmrServerless": """
            emr-serverless:UpdateApplication
            emr-serverless:DeleteApplication emr-serverless:GetApplication
            emr-serverless:ListTagsForResource emr-serverless:TagResource
            emr-serverless:UntagResource""",
        "Keys": """
            kms:DescribeKey kms:GetKeyPolicy kms:PutKeyPolicy kms:EnableKeyRotation
            kms:GetKeyRotationStatus kms:UpdateKeyDescription kms:ListResourceTags
            kms:TagResource kms:UntagResource kms:CreateGrant kms:Decrypt
            kms:Encrypt kms:GenerateDataKey""",
        "UnusedKeys": """
            kms:ScheduleKeyDeletion""",
        "Anywhere": """
            kms:CreateKey logs:DescribeLogGroups sns:Unsubscribe
            sns:GetSubscriptionAttributes ecs:CreateCluster
            ecs:DescribeTaskDefinition ecs:DeregisterTaskDefinition
            glue:CreateSecurityConfiguration glue:DeleteSecurityConfiguration
            glue:GetSecurityConfiguration emr-serverless:CreateApplication""",
        "Network": """
            ec2:DescribeSecurityGroups ec2:DescribeSecurityGroupRules
            ec2:DescribeSubnets ec2:DescribeVpcs ec2:DescribeNetworkInterfaces
            ec2:CreateSecurityGroup ec2:DeleteSecurityGroup
            ec2:AuthorizeSecurityGroupIngress ec2:AuthorizeSecurityGroupEgress
            ec2:RevokeSecurityGroupIngress ec2:RevokeSecurityGroupEgress
            ec2:CreateTags ec2:DeleteTags ec2:CreateNetworkInterface""",
    },
}  # fmt: skip
"""Actions by part and place: what the handlers of CloudFormation's resource types need, and the
AWS CLI for `infra.deploy`. Those under *Anywhere* have no resource, or one without a name yet."""
