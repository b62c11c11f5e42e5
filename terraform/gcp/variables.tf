variable "project_id" {
  description = "Project of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id: 6 to 30 lower-case letters, digits and hyphens; it is not the project's name or number."
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

# `any`, not an object with types: of an object Terraform drops a misspelt key without a word, here it is an error. Types are the
# module's.
variable "spillway" {
  description = <<-EOT
    The installation. Its keys are the variables of ../modules/gcp, which documents and checks each of them; `livekit_url` is
    needed, a key that is left out has the module's default.
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
