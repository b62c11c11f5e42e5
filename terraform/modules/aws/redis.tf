# One slot space: psrpc uses channels and scripts over several keys, so cluster mode stays off.
# No password of its own: its value would be in the state (the provider has no write-only argument for it of this version). TLS,
# and a security group that only names dispatchers, runners, the Lambda and the clients you name; users of `user_groups`, whose
# passwords are made outside of Terraform, where that is not enough.

locals {
  redis_address = var.redis.create ? "${aws_elasticache_replication_group.this[0].primary_endpoint_address}:6379" : var.redis.address
  redis_port    = var.redis.create ? 6379 : tonumber(split(":", var.redis.address)[1])
  redis_clients = var.redis.create ? merge(
    { dispatcher = aws_security_group.dispatcher.id, runner = aws_security_group.runner.id },
    local.has_settle ? { settle = aws_security_group.settle[0].id } : {},
    { for name, group in var.redis.clients : "client-${name}" => group },
  ) : {}
}

resource "aws_security_group" "redis" {
  count       = var.redis.create ? 1 : 0
  name        = "${local.prefix}-redis"
  description = "Redis: dispatchers, runners, settling, and livekit-server"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${local.prefix}-redis" })
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  for_each                     = local.redis_clients
  security_group_id            = aws_security_group.redis[0].id
  description                  = "Redis from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_vpc_security_group_ingress_rule" "redis_cidr" {
  for_each          = var.redis.create ? var.redis.client_cidrs : []
  security_group_id = aws_security_group.redis[0].id
  description       = "Redis from ${each.key}"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 6379
  to_port           = 6379
}

resource "aws_elasticache_subnet_group" "this" {
  count      = var.redis.create ? 1 : 0
  name       = local.prefix
  subnet_ids = var.network.create ? aws_subnet.private[*].id : var.network.subnet_ids
  tags       = local.tags
}

# Tickets and the registry are not a cache: nothing is thrown out to make room.
resource "aws_elasticache_parameter_group" "this" {
  count       = var.redis.create ? 1 : 0
  name        = local.prefix
  family      = "valkey8"
  description = "Spillway ${local.prefix}"
  tags        = local.tags

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_replication_group" "this" {
  count                      = var.redis.create ? 1 : 0
  replication_group_id       = local.prefix
  description                = "psrpc, registry, tickets and queue of ${local.prefix}"
  engine                     = "valkey"
  engine_version             = "8.0"
  user_group_ids             = length(var.redis.user_groups) > 0 ? var.redis.user_groups : null
  node_type                  = var.redis.node_type
  num_cache_clusters         = 1 + var.redis.replicas
  automatic_failover_enabled = var.redis.replicas > 0
  multi_az_enabled           = var.redis.replicas > 0
  parameter_group_name       = aws_elasticache_parameter_group.this[0].name
  subnet_group_name          = aws_elasticache_subnet_group.this[0].name
  security_group_ids         = [aws_security_group.redis[0].id]
  port                       = 6379
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  auto_minor_version_upgrade = true
  kms_key_id                 = var.kms_key_arn
  tags                       = local.tags

  lifecycle {
    # AWS upgrades minor versions by itself, and the provider replaces a Redis whose version is larger than the one above.
    ignore_changes = [engine_version]
  }
}
