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
}

variables {
  livekit_url = "wss://livekit.example.org"
  secrets     = {}
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
      statement.Resource == "arn:aws:ecs:eu-central-1:111122223333:task-definition/spillway-prod-runner:*" && statement.Condition.ArnEquals["ecs:cluster"] == "arn:aws:ecs:eu-central-1:111122223333:cluster/spillway-prod"
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
