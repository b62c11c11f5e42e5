resource "aws_cloudwatch_log_group" "dispatcher" {
  name              = "/${local.prefix}/dispatcher"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

resource "aws_cloudwatch_log_group" "runner" {
  name              = "/${local.prefix}/runner"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}

# Where Lambda looks for it by its own rule.
resource "aws_cloudwatch_log_group" "settle" {
  count             = local.has_settle ? 1 : 0
  name              = "/aws/lambda/${local.prefix}-settle"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}
