locals {
  bucket     = var.storage.create ? aws_s3_bucket.this[0].bucket : var.storage.bucket
  bucket_arn = "arn:${local.partition}:s3:::${local.bucket}"
}

resource "aws_s3_bucket" "this" {
  count         = var.storage.create ? 1 : 0
  bucket        = coalesce(var.storage.bucket, module.common.bucket)
  force_destroy = var.storage.force_destroy
  tags          = local.tags
}

resource "aws_s3_bucket_public_access_block" "this" {
  count                   = var.storage.create ? 1 : 0
  bucket                  = aws_s3_bucket.this[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  count  = var.storage.create ? 1 : 0
  bucket = aws_s3_bucket.this[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  count  = var.storage.create ? 1 : 0
  bucket = aws_s3_bucket.this[0].id

  rule {
    bucket_key_enabled = var.storage.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.storage.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.storage.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  count  = var.storage.create && var.storage.versioning ? 1 : 0
  bucket = aws_s3_bucket.this[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

# A recording is one upload from its first second on, and the rule counts from there: days are the longest recording that is
# allowed and two more, a week and a day without a limit. What a dead run left is only cost by then.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  count  = var.storage.create ? 1 : 0
  bucket = aws_s3_bucket.this[0].id

  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = module.common.unfinished_upload_days
    }
  }

  dynamic "rule" {
    for_each = var.storage.expire_days > 0 ? [var.storage.expire_days] : []

    content {
      id     = "expire"
      status = "Enabled"
      filter {}

      expiration {
        days = rule.value
      }
      noncurrent_version_expiration {
        noncurrent_days = 7
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  count  = var.storage.create ? 1 : 0
  bucket = aws_s3_bucket.this[0].id
  policy = templatefile("${path.module}/policies/bucket.json.tftpl", { bucket_arn = local.bucket_arn })

  depends_on = [aws_s3_bucket_public_access_block.this]
}
