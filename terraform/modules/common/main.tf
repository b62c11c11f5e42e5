# Values only, no provider: names, labels, sizes and the dispatcher's configuration, the same for every cloud.

locals {
  sizes  = jsondecode(file("${path.module}/sizes.json"))
  prefix = "${var.name}-${var.environment}"

  # An account has one list of some names for all of its regions, so that those carry the region too.
  global = var.place == "" ? local.prefix : "${local.prefix}-${var.place}"

  # Long enough for a globally unique name, short enough for a storage account.
  hash = substr(sha256("${local.global}/${var.unique}"), 0, 8)

  tags = merge(var.tags, {
    project     = "spillway"
    stack       = local.prefix
    environment = var.environment
  })

  # Google: lower-case letters, digits, - and _, at most 63; keys begin with a letter.
  label_keys = {
    for key in keys(local.tags) :
    key => substr(replace(replace(lower(key), "/[^a-z0-9_-]/", "_"), "/^([^a-z])/", "k$1"), 0, 63)
  }
  labels = {
    for key, value in local.tags : local.label_keys[key] => substr(replace(lower(value), "/[^a-z0-9_-]/", "_"), 0, 63)
  }

  size_classes = {
    for cpu, size in local.sizes.cloud_run : cpu => {
      cpu        = tonumber(cpu)
      memory_mib = lookup(var.size_classes, cpu, size.default)
    } if length(var.size_classes) == 0 || contains(keys(var.size_classes), cpu)
  }

  # Chromium needs what the default has, whatever is enough for the others.
  page_classes = {
    for cpu, size in local.size_classes : cpu => { cpu = size.cpu, memory_mib = max(size.memory_mib, local.sizes.cloud_run[cpu].default) }
  }

  redis = {
    for key, value in {
      address  = var.redis.address
      db       = var.redis.db
      username = var.redis.username
      tls      = { for key, value in { enabled = var.redis.tls, ca_cert_file = var.redis.ca_cert_file } : key => value if value != null }
    } : key => value if value != null
  }

  keys = {
    redis                  = local.redis
    ws_url                 = var.livekit_url
    logging                = { level = var.log_level, json = true }
    health_port            = var.health_port
    max_recordings         = var.limits.max_recordings
    queue                  = var.limits.queue
    queue_deadline         = "${var.limits.queue_deadline_seconds}s"
    start_deadline         = "${var.limits.start_deadline_seconds}s"
    disallow_local_storage = true
    session_limits = {
      file_output_max_duration = "${var.limits.max_duration_seconds}s"
      file_output_max_size     = var.limits.max_file_bytes
    }
    storage = { for key, value in var.storage : key => value if value != null }
    # The stack tells tasks of installations apart; without targets no task is started.
    targets = length(var.targets) == 0 ? null : var.targets
    stack   = length(var.targets) == 0 ? null : local.prefix
  }

  # Only keys that have a value; one without would be an error to the dispatcher.
  config = merge({ for key, value in local.keys : key => value if value != null }, var.settings)
}
