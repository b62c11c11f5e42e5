locals {
  # Beside a runner of another registry there is no image of pages that could be guessed.
  has_page     = var.images.page == null ? try(startswith(var.images.runner, "sha256:"), true) : var.images.page != ""
  parts        = concat(["dispatcher", "runner"], local.has_page ? ["page"] : [], local.has_settle ? ["settle"] : [])
  own_images   = { for part in local.parts : part => try(startswith(var.images[part], "sha256:"), true) }
  own_registry = anytrue(values(local.own_images))
}

# One repository, a tag for each image; digests of what ran are in the tasks themselves. Images can be pushed again, so they do not keep a
# `destroy` from its end.
resource "aws_ecr_repository" "this" {
  count                = local.own_registry ? 1 : 0
  name                 = local.prefix
  image_tag_mutability = "MUTABLE"
  force_delete         = true
  tags                 = local.tags

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  count      = local.own_registry ? 1 : 0
  repository = aws_ecr_repository.this[0].name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "images that lost their tag a week ago"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 7 }
      action       = { type = "expire" }
    }]
  })
}
