locals {
  bucket = var.storage.create ? google_storage_bucket.this[0].name : var.storage.bucket
}

resource "google_storage_bucket" "this" {
  count                       = var.storage.create ? 1 : 0
  project                     = var.project_id
  name                        = coalesce(var.storage.bucket, module.common.bucket)
  location                    = upper(var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.storage.force_destroy
  labels                      = local.labels

  versioning {
    enabled = var.storage.versioning
  }

  # A recording is one upload from its first second on, and the rule counts from there: days are the longest recording that
  # is allowed and two more, a week and a day without a limit. What a dead run left is only cost by then.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = module.common.unfinished_upload_days
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.storage.expire_days > 0 ? [var.storage.expire_days] : []

    content {
      action {
        type = "Delete"
      }
      condition {
        age = lifecycle_rule.value
      }
    }
  }

  dynamic "encryption" {
    for_each = var.storage.kms_key == null ? [] : [var.storage.kms_key]

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [time_sleep.apis]
}
