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
    condition     = alltrue([for key, value in var.tags : can(regex("^[\\w .:/=+@-]{1,128}$", key)) && can(regex("^[\\w .:/=+@-]{0,256}$", value)) && !startswith(lower(key), "aws:")])
    error_message = "tags: letters, digits, spaces and _.:/=+@- only, keys to 128 and values to 256 characters, no key beginning with aws:."
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
  description = "Container images. Without dispatcher or runner the tag of that name in a repository made here, `sha256:…` is one digest there, and a name is that of another registry; page is the runner's image with a browser, by default the tag page beside a runner that is in our repository, and without it (\"\", or a runner of another registry) web pages are refused; without settle (the dispatcher's Lambda image) there is no Lambda. All of them must exist before the service or the Lambda is made."
  type = object({
    dispatcher = optional(string)
    runner     = optional(string)
    page       = optional(string)
    settle     = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.images.settle == null || can(regex("\\.dkr\\.ecr\\.|^sha256:", var.images.settle))
    error_message = "images.settle: Lambda takes images from ECR only."
  }
}

variable "architecture" {
  description = "Processor of dispatcher, runners and Lambda: X86_64, or ARM64 (a fifth cheaper) when the images are built for it."
  type        = string
  default     = "X86_64"
  nullable    = false

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture: X86_64 or ARM64."
  }
}

variable "network" {
  description = "A network made here (create, cidr), or an existing one: vpc_id, subnets of the dispatchers and, if others, of the runners and of the Lambda (which needs NAT or endpoints). public_ip: tasks get public addresses, which costs less than NAT for media."
  type = object({
    create            = optional(bool, true)
    cidr              = optional(string, "10.80.0.0/16")
    vpc_id            = optional(string)
    subnet_ids        = optional(list(string), [])
    runner_subnet_ids = optional(list(string), [])
    settle_subnet_ids = optional(list(string), [])
    public_ip         = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrhost(var.network.cidr, 0)) && try(contains(range(16, 21), tonumber(split("/", var.network.cidr)[1])), false)
    error_message = "network.cidr: an IPv4 range from /16 to /20."
  }
  validation {
    condition     = var.network.create == (var.network.vpc_id == null) && var.network.create == (length(var.network.subnet_ids) == 0)
    error_message = "network: either create, or vpc_id with subnet_ids."
  }
  validation {
    condition     = var.network.create || var.images.settle == null || !var.network.public_ip || length(var.network.settle_subnet_ids) > 0
    error_message = "network.settle_subnet_ids: a Lambda gets no public address, so name subnets that have NAT, or endpoints of ECS and Secrets Manager."
  }
}

variable "redis" {
  description = "The Redis that livekit-server uses too: made here (node_type, replicas, who else may enter: client_cidrs are ranges, clients security groups of the same network by any name; user_groups: ids of ElastiCache user groups), or an existing one by address. password: the secret redis-password holds the password of username."
  type = object({
    create       = optional(bool, true)
    node_type    = optional(string, "cache.t4g.micro")
    replicas     = optional(number, 1)
    clients      = optional(map(string), {})
    client_cidrs = optional(set(string), [])
    user_groups  = optional(set(string), [])
    address      = optional(string)
    db           = optional(number, 0)
    username     = optional(string)
    tls          = optional(bool, true)
    password     = optional(bool, false)
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
    condition     = var.redis.replicas >= 0 && var.redis.replicas <= 5
    error_message = "redis.replicas: 0 to 5; 0 has no failover."
  }
  validation {
    condition     = length(var.redis.clients) == 0 || !var.network.create
    error_message = "redis.clients: a security group of another network cannot be named in one that is made here; use client_cidrs and peer the two."
  }
  validation {
    condition     = !var.redis.create || var.redis.password == (length(var.redis.user_groups) > 0)
    error_message = "redis: one made here has a password (and a username) where user_groups say whose, and else none."
  }
}

variable "storage" {
  description = "Bucket of the recordings: made here or, by its name, an existing one. expire_days 0: recordings do not expire. kms_key_arn: encrypt with that key, else with S3's own."
  type = object({
    create        = optional(bool, true)
    bucket        = optional(string)
    prefix        = optional(string, "")
    expire_days   = optional(number, 0)
    kms_key_arn   = optional(string)
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
    start_deadline_seconds = optional(number, 120)
    max_duration_seconds   = optional(number, 0)
    max_file_bytes         = optional(number, 0)
  })
  default  = {}
  nullable = false
}

variable "dispatcher" {
  description = "How many dispatchers run side by side, and their size as Fargate sells it (1024 is a vCPU, MiB)."
  type = object({
    count  = optional(number, 2)
    cpu    = optional(number, 256)
    memory = optional(number, 512)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.dispatcher.count >= 0 && var.dispatcher.count <= 10 && floor(var.dispatcher.count) == var.dispatcher.count
    error_message = "dispatcher.count: 0 to 10."
  }
  validation {
    condition = try(
      var.dispatcher.memory >= module.common.sizes.fargate[tostring(var.dispatcher.cpu)].least &&
      var.dispatcher.memory <= module.common.sizes.fargate[tostring(var.dispatcher.cpu)].most &&
      var.dispatcher.memory % module.common.sizes.fargate[tostring(var.dispatcher.cpu)].step == 0 &&
      !contains(try(module.common.sizes.fargate[tostring(var.dispatcher.cpu)].except, []), var.dispatcher.memory), false
    )
    error_message = "dispatcher: Fargate has no task of that cpu and memory."
  }
}

variable "runner" {
  description = "Size of a runner without overrides (every launch has them), seconds from SIGTERM to SIGKILL (2 to 120), and the order in which capacity is tried: on-demand, spot."
  type = object({
    cpu          = optional(number, 1024)
    memory       = optional(number, 2048)
    stop_seconds = optional(number, 120)
    capacity     = optional(list(string), ["on-demand"])
  })
  default  = {}
  nullable = false

  validation {
    condition     = length(var.runner.capacity) > 0 && length(setsubtract(var.runner.capacity, ["on-demand", "spot"])) == 0
    error_message = "runner.capacity: a list of on-demand and spot."
  }
  validation {
    condition     = var.runner.stop_seconds >= 2 && var.runner.stop_seconds <= 120
    error_message = "runner.stop_seconds: Fargate allows 2 to 120."
  }
  validation {
    condition = try(
      var.runner.memory >= module.common.sizes.fargate[tostring(var.runner.cpu)].least &&
      var.runner.memory <= module.common.sizes.fargate[tostring(var.runner.cpu)].most &&
      var.runner.memory % module.common.sizes.fargate[tostring(var.runner.cpu)].step == 0 &&
      !contains(try(module.common.sizes.fargate[tostring(var.runner.cpu)].except, []), var.runner.memory), false
    )
    error_message = "runner: Fargate has no task of that cpu and memory."
  }
}

variable "settle_concurrency" {
  description = "Executions of the Lambda at once that are kept for it alone; -1: none are kept, which is all that a new account (10 executions) allows."
  type        = number
  default     = -1
  nullable    = false

  validation {
    condition     = var.settle_concurrency == -1 || var.settle_concurrency >= 1
    error_message = "settle_concurrency: -1, or from 1."
  }
}

variable "settle_endpoints" {
  description = "Interface endpoints of ECS and Secrets Manager in both zones of a network made here, through which the Lambda reaches them; without them it needs NAT."
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
  description = "Version of LiveKit's key and secret and of Redis' password: they are written from `secrets` at first and whenever this number grows."
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

variable "secret_recovery_days" {
  description = "How long a destroyed secret can be brought back, and its name not be used: 0, or 7 to 30."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.secret_recovery_days == 0 || (var.secret_recovery_days >= 7 && var.secret_recovery_days <= 30)
    error_message = "secret_recovery_days: 0, or 7 to 30."
  }
}

variable "existing_secrets" {
  description = "Secrets that exist already, with a value: short name to ARN. They are read, not made."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for name, arn in var.existing_secrets :
      contains(["livekit-api-key", "livekit-api-secret", "ticket-key", "redis-password"], name) && startswith(arn, "arn:")
    ])
    error_message = "existing_secrets: ARNs of livekit-api-key, livekit-api-secret, ticket-key, redis-password."
  }
}

variable "budget" {
  description = "Monthly budget in USD of everything with our stack tag; at 80 % and 100 % these addresses get a message. 0: none."
  type = object({
    monthly_usd = optional(number, 0)
    emails      = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.budget.monthly_usd == 0 || (var.budget.monthly_usd > 0 && length(var.budget.emails) > 0)
    error_message = "budget: an amount needs addresses (emails)."
  }
}

variable "alarms" {
  description = "Alarms, and the SNS topic they are sent to (none: they are only shown)."
  type = object({
    enabled   = optional(bool, true)
    topic_arn = optional(string)
  })
  default  = {}
  nullable = false
}

variable "dashboard" {
  description = "A CloudWatch dashboard."
  type        = bool
  default     = true
  nullable    = false
}

variable "container_insights" {
  description = "Per-task metrics of ECS; costs by metric."
  type        = bool
  default     = false
  nullable    = false
}

variable "activate_cost_tags" {
  description = "Activate stack, tenant, room, type and egress_id as cost allocation tags: only in the account that pays, and a day after the tags were first used."
  type        = bool
  default     = false
  nullable    = false
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: one of the spans CloudWatch knows (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 ...)."
  }
}

variable "kms_key_arn" {
  description = "Key for logs, secrets, queue and registry; without it the vendor's own keys. Its policy must have the statements of the output key_policy, before the first apply."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a KMS key."
  }
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds every role made here."
  type        = string
  default     = null
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
