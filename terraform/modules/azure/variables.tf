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
  description = "Container images, which must exist before dispatchers start: without dispatcher or runner the latest of that name in a registry made here, `sha256:…` is one digest of it, and a name is that of another registry, whose server is `registry` if the runners' and dispatchers' identities must log in there. page is the runner's image with a browser, by default the latest page beside a runner that is in our registry; without it (\"\", or a runner of another registry) web pages are refused."
  type = object({
    dispatcher = optional(string)
    runner     = optional(string)
    page       = optional(string)
    registry   = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition = !(
      try(startswith(var.images.runner, "sha256:"), true) && try(startswith(var.images.page, "${var.images.registry}/"), false) ||
      try(startswith(var.images.page, "sha256:"), false) && try(startswith(var.images.runner, "${var.images.registry}/"), false)
    )
    error_message = "images: a runner logs in to one registry, so runner and page are both of ours or both of images.registry."
  }
}

variable "registry_sku" {
  description = "Basic, Standard or Premium, of a registry made here. Microsoft's page asks for Premium where container groups pull by identity; Basic is known to work while the registry is public."
  type        = string
  default     = "Basic"
  nullable    = false

  validation {
    condition     = contains(["Basic", "Standard", "Premium"], var.registry_sku)
    error_message = "registry_sku: Basic, Standard or Premium."
  }
}

variable "network" {
  description = "A network made here (create, cidr, NAT), or an existing one by its subnets: of the runners (delegated to container groups, with a NAT gateway and a service endpoint of Microsoft.Storage), of the dispatchers (delegated to Microsoft.App/environments), and for Redis' private endpoint."
  type = object({
    create               = optional(bool, true)
    cidr                 = optional(string, "10.82.0.0/16")
    runner_subnet_id     = optional(string)
    dispatcher_subnet_id = optional(string)
    endpoint_subnet_id   = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrhost(var.network.cidr, 0)) && try(contains(range(16, 21), tonumber(split("/", var.network.cidr)[1])), false)
    error_message = "network.cidr: an IPv4 range from /16 to /20."
  }
  validation {
    condition     = var.network.create == (var.network.runner_subnet_id == null) && (!var.network.create || (var.network.dispatcher_subnet_id == null && var.network.endpoint_subnet_id == null))
    error_message = "network: either create, or the runners' subnet and, if there are any, the dispatchers' and that of endpoints."
  }
}

variable "redis" {
  description = "The Redis that livekit-server uses too: made here (sku; dns_networks: ids of further virtual networks that know its name, by any name; public: reachable from the internet, with its key), or an existing one by address, whose password is the secret redis-password if password is true."
  type = object({
    create       = optional(bool, true)
    sku          = optional(string, "Balanced_B0")
    public       = optional(bool, false)
    dns_networks = optional(map(string), {})
    address      = optional(string)
    db           = optional(number, 0)
    username     = optional(string)
    tls          = optional(bool, true)
    password     = optional(bool, true)
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
  validation {
    condition     = !var.redis.create || var.network.create || var.network.endpoint_subnet_id != null || var.redis.public
    error_message = "redis: in an existing network name a subnet for its private endpoint (network.endpoint_subnet_id), or open it to the internet (redis.public)."
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
    start_deadline_seconds = optional(number, 240)
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
  description = "Values of the secrets by short name: livekit-api-key, livekit-api-secret, ticket-key (openssl rand -base64 32), redis-password. Written, never kept in state or plan; needed in the run that makes a secret or raises its version, and in no other."
  type        = map(string)
  default     = {}
  nullable    = false
  ephemeral   = true
  sensitive   = true
}

variable "secrets_version" {
  description = "Version of LiveKit's key and secret and of the password of an existing Redis: they are written from `secrets` at first and whenever this number grows."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.secrets_version >= 1 && floor(var.secrets_version) == var.secrets_version
    error_message = "secrets_version: 1, 2 and so on; what is written outside of Terraform is named in existing_secrets."
  }
}

variable "ticket_key_version" {
  description = "The same for the ticket key, which must not change while recordings wait to start."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.ticket_key_version >= 1 && floor(var.ticket_key_version) == var.ticket_key_version
    error_message = "ticket_key_version: 1, 2 and so on."
  }
}

variable "vault_writers" {
  description = "Object ids of the persons, groups or identities that apply this: they may read and write the vault's secrets, which every plan reads. Empty: who applies it first."
  type        = set(string)
  default     = []
  nullable    = false
}

variable "purge_protection" {
  description = "A destroyed vault can be restored for 7 days and cannot be purged before; the next apply restores it by itself. It cannot be switched off again."
  type        = bool
  default     = true
  nullable    = false
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
