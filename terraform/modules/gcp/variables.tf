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

variable "labels" {
  description = "Labels of every resource, beside project, stack and environment; made legal where they are not."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "project_id" {
  description = "Project of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id: 6 to 30 lower-case letters, digits and hyphens; it is not the project's name or number."
  }
}

variable "project_number" {
  description = "The project's number; without it Cloud Resource Manager is asked, which must be enabled then."
  type        = string
  default     = null

  validation {
    condition     = var.project_number == null || can(regex("^[0-9]{6,14}$", var.project_number))
    error_message = "project_number: digits, as `gcloud projects describe` shows it."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: as in europe-west3, without a zone."
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
  description = "Container images, which Cloud Run wants to exist before the job: without dispatcher or runner the latest of that name in a registry made here, `sha256:…` is one digest of it, and a name is that of another registry. page is the runner's image with a browser, by default the latest page beside a runner that is in our registry; without it (\"\", or a runner of another registry) there are no jobs for web pages, which are refused."
  type = object({
    dispatcher = optional(string)
    runner     = optional(string)
    page       = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for image in [var.images.dispatcher, var.images.runner, var.images.page] :
      image == null || can(regex("^([a-z0-9-]+-docker\\.pkg\\.dev|([a-z]+\\.)?gcr\\.io|docker\\.io)/", image)) || !can(regex("^[^/]*[.:][^/]*/", image))
    ])
    error_message = "images: Cloud Run takes images from Artifact Registry (REGION-docker.pkg.dev, gcr.io) and Docker Hub only; a remote repository of Artifact Registry passes others on."
  }
}

variable "network" {
  description = "A network made here (create, cidr, NAT), or an existing one by network and subnetwork. egress: ALL_TRAFFIC sends media through it, which UDP needs; PRIVATE_RANGES_ONLY when livekit-server has an address in it."
  type = object({
    create     = optional(bool, true)
    cidr       = optional(string, "10.81.0.0/20")
    network    = optional(string)
    subnetwork = optional(string)
    egress     = optional(string, "ALL_TRAFFIC")
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrhost(var.network.cidr, 0)) && try(tonumber(split("/", var.network.cidr)[1]) <= 26, false)
    error_message = "network.cidr: Cloud Run takes addresses by the sixteen, so /26 or larger."
  }
  validation {
    condition     = var.network.create == (var.network.network == null) && var.network.create == (var.network.subnetwork == null)
    error_message = "network: either create, or network with subnetwork."
  }
  validation {
    condition     = contains(["ALL_TRAFFIC", "PRIVATE_RANGES_ONLY"], var.network.egress)
    error_message = "network.egress: ALL_TRAFFIC or PRIVATE_RANGES_ONLY."
  }
}

variable "redis" {
  description = "The Redis that livekit-server uses too: made here (memory_gb, tier), or an existing one by address. password: one made here gets a password, which Google keeps in the state; for an existing one the secret redis-password holds it."
  type = object({
    create    = optional(bool, true)
    memory_gb = optional(number, 1)
    tier      = optional(string, "STANDARD_HA")
    address   = optional(string)
    db        = optional(number, 0)
    username  = optional(string)
    tls       = optional(bool, true)
    password  = optional(bool, false)
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
    condition     = contains(["BASIC", "STANDARD_HA"], var.redis.tier) && var.redis.memory_gb >= 1 && var.redis.memory_gb <= 300
    error_message = "redis: tier BASIC or STANDARD_HA, 1 to 300 GB."
  }
}

variable "storage" {
  description = "Bucket of the recordings: made here or, by its name, an existing one. expire_days 0: recordings do not expire. prefix: nothing else can be written or read (an existing bucket must have uniform access then). kms_key: encrypt with that key, else with Google's own."
  type = object({
    create        = optional(bool, true)
    bucket        = optional(string)
    prefix        = optional(string, "")
    expire_days   = optional(number, 0)
    kms_key       = optional(string)
    versioning    = optional(bool, false)
    force_destroy = optional(bool, false)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.storage.create || var.storage.bucket != null
    error_message = "storage: create, or the name of a bucket."
  }
  validation {
    condition     = var.storage.expire_days >= 0
    error_message = "storage.expire_days is not negative."
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
  description = "How many dispatchers run side by side, vCPU and memory of each. With its CPU always on Cloud Run sells at least one vCPU."
  type = object({
    count      = optional(number, 2)
    cpu        = optional(number, 1)
    memory_mib = optional(number, 512)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.dispatcher.count >= 1 && var.dispatcher.count <= 10 && floor(var.dispatcher.count) == var.dispatcher.count
    error_message = "dispatcher.count: 1 to 10."
  }
  validation {
    condition     = contains([1, 2, 4], var.dispatcher.cpu) && var.dispatcher.memory_mib >= 512
    error_message = "dispatcher: 1, 2 or 4 vCPU and 512 MiB at least."
  }
}

variable "size_classes" {
  description = "A job for each vCPU count, with its memory in MiB: a run cannot change a job's size. Empty: all five that Cloud Run has. Web pages have a second job for each, with at least the default memory."
  type        = map(number)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.size_classes), ["1", "2", "4", "6", "8"])) == 0
    error_message = "size_classes: 1, 2, 4, 6 or 8 vCPU."
  }
}

variable "task_hours" {
  description = "How long a runner may live before Cloud Run ends it; launches shorten it."
  type        = number
  default     = 24
  nullable    = false

  validation {
    condition     = var.task_hours > 0 && var.task_hours <= 24
    error_message = "task_hours: up to 24."
  }
}

variable "events" {
  description = "Ends of executions come to the dispatchers as they happen (log sink, Pub/Sub); without it they are asked for."
  type        = bool
  default     = true
  nullable    = false
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

variable "existing_secrets" {
  description = "Secrets that exist already, with a value: short name to the secret's id in this project. They are read, not made."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.existing_secrets), ["livekit-api-key", "livekit-api-secret", "ticket-key", "redis-password"])) == 0
    error_message = "existing_secrets: livekit-api-key, livekit-api-secret, ticket-key, redis-password."
  }
}

variable "budget" {
  description = "Monthly budget of everything with our stack label, in the currency of the billing account it is under; at 80 % and 100 % the addresses of alarms get a message, without addresses the account's administrators. 0: none."
  type = object({
    monthly         = optional(number, 0)
    billing_account = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.budget.monthly == 0 || (var.budget.monthly > 0 && var.budget.billing_account != null)
    error_message = "budget: an amount needs the billing account it belongs to."
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
  description = "A Cloud Monitoring dashboard."
  type        = bool
  default     = true
  nullable    = false
}

variable "enable_apis" {
  description = "Enable the APIs that all this uses."
  type        = bool
  default     = true
  nullable    = false
}

variable "deletion_protection" {
  description = "Jobs and the dispatchers' service can only be destroyed after this is false."
  type        = bool
  default     = false
  nullable    = false
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
