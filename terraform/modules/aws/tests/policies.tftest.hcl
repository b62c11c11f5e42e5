# Exactly these actions, on exactly these things.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b"] }
  }
  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod" }
  }
  mock_resource "aws_ecr_repository" {
    defaults = { arn = "arn:aws:ecr:eu-central-1:111122223333:repository/spillway-prod" }
  }
}

variables {
  livekit_url = "wss://livekit.example.org"
  secrets     = { livekit-api-key = "k", livekit-api-secret = "s", ticket-key = "t" }
  images      = { settle = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/spillway-prod:settle" }
}

run "least_privilege" {
  assert {
    condition = sort(flatten([for statement in jsondecode(output.policies.dispatcher).Statement : statement.Action])) == sort([
      "ecs:DescribeTasks", "ecs:ListTasks", "ecs:RunTask", "ecs:StopTask", "ecs:TagResource", "iam:PassRole",
    ])
    error_message = "a dispatcher launches, watches, stops, and nothing else"
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(output.policies.dispatcher).Statement :
      toset(statement.Resource) == toset([for family in ["runner", "runner-page"] : "arn:aws:ecs:eu-central-1:111122223333:task-definition/spillway-prod-${family}:*"]) && statement.Condition.ArnEquals["ecs:cluster"] == "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod"
      if statement.Action == "ecs:RunTask"
    ])
    error_message = "only runners, only in this cluster"
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(output.policies.dispatcher).Statement :
      toset(statement.Resource) == toset([aws_iam_role.runner.arn, aws_iam_role.runner_execution.arn]) && statement.Condition.StringEquals["iam:PassedToService"] == "ecs-tasks.amazonaws.com"
      if statement.Action == "iam:PassRole"
    ])
    error_message = "only runners' roles, only to ECS"
  }
  assert {
    condition = sort(flatten([for statement in jsondecode(output.policies.runner).Statement : statement.Action])) == sort([
      "s3:AbortMultipartUpload", "s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectTagging",
    ])
    error_message = "a runner uploads, and cannot delete"
  }
  assert {
    condition     = alltrue([for statement in jsondecode(output.policies.runner).Statement : startswith(statement.Resource, "arn:aws:s3:::${output.bucket}")])
    error_message = "into one bucket"
  }
  assert {
    condition = sort(flatten([for statement in jsondecode(output.policies.settle).Statement : statement.Action])) == sort([
      "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
      "logs:CreateLogStream", "logs:PutLogEvents", "secretsmanager:GetSecretValue", "sqs:SendMessage",
    ])
    error_message = "the Lambda stands in the network, logs, reads its secrets"
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(output.policies.runner_execution).Statement :
      toset(statement.Resource) == toset([aws_secretsmanager_secret.this["ticket-key"].arn])
      if statement.Action == "secretsmanager:GetSecretValue"
    ])
    error_message = "what starts runners reads the ticket key only"
  }
  assert {
    condition = alltrue(flatten([
      for policy in values(output.policies) : [
        for statement in jsondecode(policy).Statement : [
          for action in flatten([statement.Action]) : !strcontains(action, "*")
        ]
      ]
    ]))
    error_message = "no action is a pattern"
  }
}

run "a_dispatcher_stops_no_dispatcher" {
  assert {
    condition = alltrue([
      for statement in jsondecode(output.policies.dispatcher).Statement :
      statement.Resource == "arn:aws:ecs:eu-central-1:111122223333:task/spillway-prod-runners/*"
      if contains(flatten([statement.Action]), "ecs:StopTask") || contains(flatten([statement.Action]), "ecs:TagResource")
    ])
    error_message = "only tasks of the runners' cluster"
  }
}

run "roles_are_for_this_account" {
  assert {
    condition = alltrue([
      for role in [aws_iam_role.dispatcher, aws_iam_role.runner] :
      jsondecode(role.assume_role_policy).Statement[0].Condition == { StringEquals = { "aws:SourceAccount" = "111122223333" } }
    ])
    error_message = "tasks of another account do not get a task's role"
  }
  assert {
    condition     = alltrue([for role in [aws_iam_role.dispatcher_execution, aws_iam_role.runner_execution, aws_iam_role.settle[0]] : length(keys(jsondecode(role.assume_role_policy).Statement[0].Condition)) == 0])
    error_message = "where AWS promises no source, none is asked for"
  }
}

run "each_part_pulls_its_own_image" {
  variables {
    images = {
      dispatcher = "444455556666.dkr.ecr.us-east-1.amazonaws.com/team/dispatcher@sha256:00"
      page       = "444455556666.dkr.ecr.us-east-1.amazonaws.com/team/page:1"
    }
  }

  assert {
    condition = {
      for part in ["dispatcher_execution", "runner_execution"] : part => join(" ", flatten([for statement in jsondecode(output.policies[part]).Statement : statement.Resource if statement.Sid == "PullImages"]))
      } == {
      dispatcher_execution = "arn:aws:ecr:us-east-1:444455556666:repository/team/dispatcher"
      runner_execution     = "arn:aws:ecr:eu-central-1:111122223333:repository/spillway-prod arn:aws:ecr:us-east-1:444455556666:repository/team/page"
    }
    error_message = "from its own repository, whichever the other's is"
  }
}

run "an_image_by_its_digest_is_ours" {
  variables {
    images = { dispatcher = "sha256:aa", runner = "sha256:bb", page = "sha256:dd", settle = "sha256:cc" }
  }

  assert {
    condition     = length(aws_ecr_repository.this) == 1 && endswith(jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].image, "@sha256:bb") && endswith(jsondecode(aws_ecs_task_definition.page[0].container_definitions)[0].image, "@sha256:dd") && endswith(aws_lambda_function.settle[0].image_uri, "@sha256:cc")
    error_message = "an upgrade by digests keeps the registry that they are in"
  }
}

run "a_key_must_know_logs_and_events" {
  assert {
    condition     = [for statement in jsondecode(output.key_policy).Statement : statement.Principal.Service] == ["logs.eu-central-1.amazonaws.com", "events.amazonaws.com"] && alltrue(flatten([for statement in jsondecode(output.key_policy).Statement : [for action in statement.Action : !strcontains(action, "*")]]))
    error_message = "the services that use it, and no action as a pattern"
  }
}
