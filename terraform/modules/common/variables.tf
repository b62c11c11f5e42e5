variable "name" {
  description = "What this installation is called; begins every resource's name."
  type        = string
  default     = "spillway"
  nullable    = false

  validation {
    condition     = length(var.name) >= 2 && length(var.name) <= 16 && can(regex("^[a-z](-?[a-z0-9])*$", var.name))
    error_message = "name: 2 to 16 lower-case letters, digits and single hyphens, beginning with a letter."
  }
}

variable "environment" {
  description = "Which of several installations, for example dev or prod; second part of every name."
  type        = string
  default     = "prod"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,9}$", var.environment))
    error_message = "environment: 2 to 10 lower-case letters and digits, beginning with a letter."
  }
}

variable "place" {
  description = "Region, for names that an account has once for all regions."
  type        = string
  default     = ""
  nullable    = false
}

variable "unique" {
  description = "What makes globally unique names unique (bucket, storage account): an account, a project, a subscription. Hashed."
  type        = string
  default     = ""
  nullable    = false
}

variable "tags" {
  description = "Tags (AWS, Azure) or labels (Google) of every resource, beside our own."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setintersection(keys(var.tags), ["project", "stack", "environment"])) == 0
    error_message = "tags: project, stack and environment are set by the module."
  }
}

variable "livekit_url" {
  description = "livekit-server as runners reach it, ws:// or wss://."
  type        = string

  validation {
    condition     = can(regex("^wss?://[^/ ]+", var.livekit_url))
    error_message = "livekit_url begins with ws:// or wss://."
  }
}

variable "redis" {
  description = "The Redis that livekit-server uses: host:port, its db, TLS, and the file of its authority when that is not a public one. Its password is a secret and not here."
  type = object({
    address      = string
    db           = optional(number, 0)
    username     = optional(string)
    tls          = optional(bool, true)
    ca_cert_file = optional(string)
  })
}

variable "storage" {
  description = "Where recordings are stored when a request names no destination: the section `storage` of the dispatcher's configuration."
  type = object({
    prefix = optional(string)
    s3     = optional(object({ bucket = string, region = string }))
    gcp    = optional(object({ bucket = string }))
    azure  = optional(object({ account_name = string, container_name = string }))
  })

  validation {
    condition     = length([for store in [var.storage.s3, var.storage.gcp, var.storage.azure] : store if store != null]) == 1
    error_message = "storage: exactly one of s3, gcp and azure."
  }
}

variable "limits" {
  description = "Bounds of the dispatcher: recordings at once, accepted requests that may wait and how long, longest recording (0: none), largest file in bytes (0: none)."
  type = object({
    max_recordings         = optional(number)
    queue                  = optional(number, 200)
    queue_deadline_seconds = optional(number, 60)
    start_deadline_seconds = optional(number, 120)
    max_duration_seconds   = optional(number, 0)
    max_file_bytes         = optional(number, 0)
  })
  default  = {}
  nullable = false

  validation {
    condition = (
      try(var.limits.max_recordings >= 1, true) && var.limits.queue >= 0 && var.limits.queue_deadline_seconds >= 1 &&
      var.limits.start_deadline_seconds >= 10 && var.limits.max_duration_seconds >= 0 && var.limits.max_file_bytes >= 0
    )
    error_message = "limits: max_recordings from 1, queue from 0, deadlines from 1 s (start: 10 s), nothing negative."
  }
}

variable "health_port" {
  description = "Port of /healthz and /readyz."
  type        = number
  default     = 8080
  nullable    = false

  validation {
    condition     = var.health_port >= 1024 && var.health_port <= 65535
    error_message = "health_port: 1024 to 65535; the dispatcher is an ordinary user."
  }
}

variable "log_level" {
  description = "Of dispatcher and runners: debug, info, warn or error."
  type        = string
  default     = "info"
  nullable    = false

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "log_level: debug, info, warn or error."
  }
}

variable "targets" {
  description = "Where runners are started, in order of preference, with the keys of the dispatcher's configuration."
  type        = any
  default     = []
  nullable    = false
}

variable "settings" {
  description = "Further keys of the dispatcher's configuration, which replace ours on the top level."
  type        = any
  default     = {}
  nullable    = false

  validation {
    condition     = can(keys(var.settings)) && length(setintersection(try(keys(var.settings), []), ["api_secret", "api_key", "ticket_key"])) == 0
    error_message = "settings is a map, and holds no secret: api_key, api_secret and ticket_key come from the secret store."
  }
}

variable "size_classes" {
  description = "Cloud Run: memory in MiB of the job of each vCPU count; a count that is left out has no job. Empty: all five with our own. Web pages have a second job for each, with at least our own memory."
  type        = map(number)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for cpu, memory in var.size_classes :
      try(memory >= local.sizes.cloud_run[cpu].least && memory <= local.sizes.cloud_run[cpu].most && memory % 512 == 0, false)
    ])
    error_message = "size_classes: 1, 2, 4, 6 or 8 vCPU with the memory that Cloud Run has for it (1: 512 to 4096 MiB, 2: to 8192, 4: 2048 to 16384, 6: 4096 to 24576, 8: 4096 to 32768), in steps of 512."
  }
}
