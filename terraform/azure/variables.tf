variable "subscription_id" {
  description = "Subscription of everything."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "subscription_id is a UUID."
  }
}

# `any`, not an object with types: of an object Terraform drops a misspelt key without a word, here it is an error. Types are the
# module's.
variable "spillway" {
  description = <<-EOT
    The installation. Its keys are the variables of ../modules/azure, which documents and checks each of them; `livekit_url` and
    `location` are needed, a key that is left out has the module's default.
  EOT
  type        = any
  nullable    = false

  validation {
    condition     = can(keys(var.spillway)) && length(setsubtract(try(keys(var.spillway), []), keys(local.unset))) == 0
    error_message = "spillway: an object with no other keys than ${join(", ", keys(local.unset))}."
  }
}

variable "secrets" {
  description = <<-EOT
    Values of the secrets by short name: livekit-api-key, livekit-api-secret, ticket-key (openssl rand -base64 32), redis-password.
    They are written into the vendor's secret store and are in no state and no plan; `spillway.secrets_version` says when.
  EOT
  type        = map(string)
  default     = {}
  nullable    = false
  ephemeral   = true
  sensitive   = true
}
