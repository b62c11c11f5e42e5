# Runners in public subnets with public addresses: media goes straight to the SFU, and NAT would cost more than Spot.
# Nothing listens there: no security group of runners or dispatchers has an ingress rule.

data "aws_availability_zones" "this" {
  count = var.network.create ? 1 : 0
  state = "available"

  # Without Local and Wavelength Zones, which an account may have opted into: there is neither Fargate nor ElastiCache, and
  # `us-east-1-bos-1a` stands before `us-east-1a`.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones          = var.network.create ? slice(data.aws_availability_zones.this[0].names, 0, 2) : []
  vpc_id         = var.network.create ? aws_vpc.this[0].id : var.network.vpc_id
  subnets        = var.network.create ? aws_subnet.public[*].id : var.network.subnet_ids
  runner_subnets = var.network.create || length(var.network.runner_subnet_ids) == 0 ? local.subnets : var.network.runner_subnet_ids
  # A Lambda gets no public address, so a subnet of tasks with public addresses is no way out for it.
  settle_subnets = var.network.create ? aws_subnet.private[*].id : length(var.network.settle_subnet_ids) > 0 ? var.network.settle_subnet_ids : var.network.subnet_ids
  endpoints      = var.network.create && local.has_settle && var.settle_endpoints ? toset(["ecs", "secretsmanager"]) : toset([])
}

resource "aws_vpc" "this" {
  count                = var.network.create ? 1 : 0
  cidr_block           = var.network.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = local.prefix })
}

# Taken over without rules, so that nothing can be put into it by mistake.
resource "aws_default_security_group" "this" {
  count  = var.network.create ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${local.prefix}-unused" })
}

resource "aws_internet_gateway" "this" {
  count  = var.network.create ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = local.prefix })
}

# An address per recording: 2 x 4091 in a /16.
resource "aws_subnet" "public" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.this[0].id
  cidr_block        = cidrsubnet(var.network.cidr, 4, count.index)
  availability_zone = local.zones[count.index]
  tags              = merge(local.tags, { Name = "${local.prefix}-public-${count.index}" })
}

resource "aws_subnet" "private" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.this[0].id
  cidr_block        = cidrsubnet(var.network.cidr, 8, 254 + count.index)
  availability_zone = local.zones[count.index]
  tags              = merge(local.tags, { Name = "${local.prefix}-private-${count.index}" })
}

resource "aws_route_table" "public" {
  count  = var.network.create ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${local.prefix}-public" })
}

resource "aws_route" "internet" {
  count                  = var.network.create ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

# Free, and keeps uploads off every metered path.
resource "aws_vpc_endpoint" "s3" {
  count             = var.network.create ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public[0].id]
  tags              = merge(local.tags, { Name = "${local.prefix}-s3" })
}

# A Lambda in a network has no public address; these are its way to launch a salvage and to read its secrets. Private DNS sends
# everybody in the network through them, so they stand in both zones: in one, its failure would stop every start.
resource "aws_vpc_endpoint" "settle" {
  for_each            = local.endpoints
  vpc_id              = aws_vpc.this[0].id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.endpoint[0].id]
  tags                = merge(local.tags, { Name = "${local.prefix}-${each.key}" })
}

resource "aws_security_group" "dispatcher" {
  name        = "${local.prefix}-dispatcher"
  description = "Dispatchers: nothing comes in"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${local.prefix}-dispatcher" })
}

resource "aws_security_group" "runner" {
  name        = "${local.prefix}-runner"
  description = "Runners: nothing comes in"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${local.prefix}-runner" })
}

resource "aws_security_group" "settle" {
  count       = local.has_settle ? 1 : 0
  name        = "${local.prefix}-settle"
  description = "The settling Lambda: nothing comes in"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${local.prefix}-settle" })
}

resource "aws_security_group" "endpoint" {
  count       = length(local.endpoints) > 0 ? 1 : 0
  name        = "${local.prefix}-endpoint"
  description = "Interface endpoints, for the settling Lambda and everybody else in the network"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${local.prefix}-endpoint" })
}

# Private DNS sends the dispatchers here too, so the whole network may enter.
resource "aws_vpc_security_group_ingress_rule" "endpoint" {
  count             = length(local.endpoints) > 0 ? 1 : 0
  security_group_id = aws_security_group.endpoint[0].id
  description       = "HTTPS from this network"
  cidr_ipv4         = var.network.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "dispatcher_https" {
  security_group_id = aws_security_group.dispatcher.id
  description       = "ECS, ECR, secrets, logs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "dispatcher_redis" {
  security_group_id            = aws_security_group.dispatcher.id
  description                  = "Redis"
  cidr_ipv4                    = var.redis.create ? null : "0.0.0.0/0"
  referenced_security_group_id = one(aws_security_group.redis[*].id)
  ip_protocol                  = "tcp"
  from_port                    = local.redis_port
  to_port                      = local.redis_port
}

# The SFU announces any address and port; RTMP and SRT go anywhere.
resource "aws_vpc_security_group_egress_rule" "runner" {
  security_group_id = aws_security_group.runner.id
  description       = "Media, storage, Redis"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_egress_rule" "settle_https" {
  count             = local.has_settle ? 1 : 0
  security_group_id = aws_security_group.settle[0].id
  description       = "ECS and secrets"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "settle_redis" {
  count                        = local.has_settle ? 1 : 0
  security_group_id            = aws_security_group.settle[0].id
  description                  = "Redis"
  cidr_ipv4                    = var.redis.create ? null : "0.0.0.0/0"
  referenced_security_group_id = one(aws_security_group.redis[*].id)
  ip_protocol                  = "tcp"
  from_port                    = local.redis_port
  to_port                      = local.redis_port
}
