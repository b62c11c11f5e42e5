variable "name" {
  description = "What this installation is called; begins every resource's name."
  type        = string
  default     = "spillway"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name))
    error_message = "name: 2 to 16 lower-case letters, digits and hyphens, beginning with a letter."
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

variable "tags" {
  description = "Tags of every resource, beside project, stack and environment."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key, value in var.tags : can(regex("^[^<>%&\\\\?/]{1,512}$", key)) && length(value) <= 256])
    error_message = "tags: keys to 512 characters without < > % & \\ ? /, values to 256."
  }
}

variable "location" {
  description = "Region of everything, as eastus."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+[0-9]*$", var.location))
    error_message = "location: as in westeurope, without spaces."
  }
}

variable "subscription_id" {
  description = "Subscription of everything."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "subscription_id is a UUID."
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

variable "images" {
  description = "Container images, which must exist before dispatchers start: without dispatcher or runner those of that name in a registry made here. registry: server of another registry to which the runners' and dispatchers' identities may log in."
  type = object({
    dispatcher = optional(string)
    runner     = optional(string)
    registry   = optional(string)
  })
  default  = {}
  nullable = false
}

variable "network" {
  description = "A network made here (create, cidr, NAT), or an existing one by its subnets: of the runners (delegated to container groups, with a NAT gateway), and of the dispatchers (delegated to Microsoft.App/environments)."
  type = object({
    create               = optional(bool, true)
    cidr                 = optional(string, "10.82.0.0/16")
    runner_subnet_id     = optional(string)
    dispatcher_subnet_id = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrhost(var.network.cidr, 0)) && try(contains(range(16, 21), tonumber(split("/", var.network.cidr)[1])), false)
    error_message = "network.cidr: an IPv4 range from /16 to /20."
  }
  validation {
    condition     = var.network.create == (var.network.runner_subnet_id == null) && (!var.network.create || var.network.dispatcher_subnet_id == null)
    error_message = "network: either create, or the runners' subnet and, if there is one, the dispatchers'."
  }
}

variable "redis" {
  description = "The Redis that livekit-server uses too: made here (sku, and public: reachable from outside the network, with its key), or an existing one by address, whose password is the secret redis-password if password is true."
  type = object({
    create   = optional(bool, true)
    sku      = optional(string, "Balanced_B0")
    public   = optional(bool, false)
    address  = optional(string)
    db       = optional(number, 0)
    username = optional(string)
    tls      = optional(bool, true)
    password = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.redis.create == (var.redis.address == null)
    error_message = "redis: either create, or address."
  }
  validation {
    condition     = var.redis.address == null || can(regex("^[^:/ ]+:[0-9]{2,5}$", var.redis.address))
    error_message = "redis.address is host:port."
  }
  validation {
    condition     = !var.redis.create || (var.redis.password && var.redis.tls && var.redis.db == 0)
    error_message = "redis: one made here has TLS, a key and db 0."
  }
}

variable "storage" {
  description = "Storage account and container of the recordings: made here, or existing by their names and the container's resource id. expire_days 0: recordings do not expire."
  type = object({
    create       = optional(bool, true)
    account      = optional(string)
    container    = optional(string, "recordings")
    container_id = optional(string)
    prefix       = optional(string, "")
    replication  = optional(string, "LRS")
    expire_days  = optional(number, 0)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.storage.create || (var.storage.account != null && var.storage.container_id != null)
    error_message = "storage: create, or the account and the container's id."
  }
  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "GZRS"], var.storage.replication) && var.storage.expire_days >= 0
    error_message = "storage: replication LRS, ZRS, GRS or GZRS; expire_days is not negative."
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
}

variable "dispatcher" {
  description = "How many dispatchers run side by side, vCPU of each in quarters; there are 2 GiB of memory to each vCPU."
  type = object({
    count = optional(number, 2)
    cpu   = optional(number, 0.25)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.dispatcher.count >= 1 && var.dispatcher.count <= 10 && floor(var.dispatcher.count) == var.dispatcher.count
    error_message = "dispatcher.count: 1 to 10."
  }
  validation {
    condition     = contains([0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2], var.dispatcher.cpu)
    error_message = "dispatcher.cpu: 0.25 to 2 in quarters."
  }
}

variable "secrets" {
  description = "Values of the secrets by short name: livekit-api-key, livekit-api-secret, ticket-key (openssl rand -base64 32), redis-password. Written, never kept in state or plan; see secrets_version."
  type        = map(string)
  default     = {}
  nullable    = false
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = var.secrets_version == 0 || length(setsubtract(["livekit-api-key", "livekit-api-secret", "ticket-key"], concat(keys(var.existing_secrets), keys(var.secrets)))) == 0
    error_message = "secrets: livekit-api-key, livekit-api-secret and ticket-key are needed, unless they are among existing_secrets."
  }
}

variable "secrets_version" {
  description = "0: the values of all secrets exist already (existing_secrets). From 1: `secrets` are written, and again whenever this number grows."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.secrets_version >= 0 && floor(var.secrets_version) == var.secrets_version
    error_message = "secrets_version: 0, 1, 2 and so on."
  }
  validation {
    condition     = var.secrets_version > 0 || length(setsubtract(["livekit-api-key", "livekit-api-secret", "ticket-key"], keys(var.existing_secrets))) == 0
    error_message = "secrets_version: the dispatchers do not start while a secret has no value, so either write them (1 and `secrets`) or name existing_secrets."
  }
}

variable "existing_secrets" {
  description = "Secrets that exist already, with a value: short name to the key vault secret's id without a version. The dispatchers' identity must be allowed to read them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for name, id in var.existing_secrets :
      contains(["livekit-api-key", "livekit-api-secret", "ticket-key", "redis-password"], name) && can(regex("^https://[^/]+/secrets/[^/]+$", id))
    ])
    error_message = "existing_secrets: https://VAULT/secrets/NAME of livekit-api-key, livekit-api-secret, ticket-key, redis-password."
  }
}

variable "budget" {
  description = "Monthly budget in USD of everything with our stack tag, from the first day of a month (start, as 2027-01-01T00:00:00Z); at 80 % and 100 % these addresses get a message. 0: none."
  type = object({
    monthly_usd = optional(number, 0)
    start       = optional(string)
    emails      = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.budget.monthly_usd == 0 || (var.budget.monthly_usd > 0 && length(var.budget.emails) > 0 && can(regex("^[0-9]{4}-[0-9]{2}-01T00:00:00Z$", var.budget.start)))
    error_message = "budget: an amount needs addresses (emails) and the first day of a month (start)."
  }
}

variable "alarms" {
  description = "Alarms, and the addresses they are sent to."
  type = object({
    enabled = optional(bool, true)
    emails  = optional(set(string), [])
  })
  default  = {}
  nullable = false
}

variable "dashboard" {
  description = "A dashboard in the portal."
  type        = bool
  default     = true
  nullable    = false
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "log_retention_days: Log Analytics keeps them 30 to 730 days."
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

variable "settings" {
  description = "Further keys of the dispatcher's configuration, which replace ours on the top level. No secrets."
  type        = any
  default     = {}
  nullable    = false
}
