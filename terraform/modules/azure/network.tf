# Container groups in a network have no public address, and a NAT gateway is their only way out; nothing comes in.

locals {
  runner_subnet     = var.network.create ? azurerm_subnet.runners[0].id : var.network.runner_subnet_id
  dispatcher_subnet = var.network.create ? azurerm_subnet.dispatchers[0].id : var.network.dispatcher_subnet_id
  endpoint_subnet   = var.network.create ? azurerm_subnet.endpoints[0].id : var.network.endpoint_subnet_id
}

resource "azurerm_virtual_network" "this" {
  count               = var.network.create ? 1 : 0
  name                = local.prefix
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  address_space       = [var.network.cidr]
  tags                = local.tags
}

resource "azurerm_subnet" "runners" {
  count                = var.network.create ? 1 : 0
  name                 = "runners"
  resource_group_name  = azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this[0].name
  address_prefixes     = [cidrsubnet(var.network.cidr, 2, 0)]
  # Uploads go past the NAT gateway, which is paid by the byte.
  service_endpoints = ["Microsoft.Storage"]

  delegation {
    name = "container-groups"

    service_delegation {
      name    = "Microsoft.ContainerInstance/containerGroups"
      actions = ["Microsoft.Network/virtualNetworks/subnets/action"]
    }
  }
}

resource "azurerm_subnet" "dispatchers" {
  count                = var.network.create ? 1 : 0
  name                 = "dispatchers"
  resource_group_name  = azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this[0].name
  address_prefixes     = [cidrsubnet(var.network.cidr, 7, 64)]

  delegation {
    name = "container-apps"

    service_delegation {
      name    = "Microsoft.App/environments"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_subnet" "endpoints" {
  count                = var.network.create ? 1 : 0
  name                 = "endpoints"
  resource_group_name  = azurerm_resource_group.this.name
  virtual_network_name = azurerm_virtual_network.this[0].name
  address_prefixes     = [cidrsubnet(var.network.cidr, 8, 255)]
}

# Stateful: answers to what runners began come in, nothing else does.
resource "azurerm_network_security_group" "runners" {
  count               = var.network.create ? 1 : 0
  name                = "${local.prefix}-runners"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = local.tags

  security_rule {
    name                       = "nothing-comes-in"
    priority                   = 4000
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    destination_port_range     = "*"
    source_address_prefix      = "*"
    destination_address_prefix = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "runners" {
  count                     = var.network.create ? 1 : 0
  subnet_id                 = azurerm_subnet.runners[0].id
  network_security_group_id = azurerm_network_security_group.runners[0].id
}

resource "azurerm_public_ip" "nat" {
  count               = var.network.create ? 1 : 0
  name                = "${local.prefix}-nat"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway" "this" {
  count               = var.network.create ? 1 : 0
  name                = local.prefix
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  sku_name            = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  count                = var.network.create ? 1 : 0
  nat_gateway_id       = azurerm_nat_gateway.this[0].id
  public_ip_address_id = azurerm_public_ip.nat[0].id
}

resource "azurerm_subnet_nat_gateway_association" "runners" {
  count          = var.network.create ? 1 : 0
  subnet_id      = azurerm_subnet.runners[0].id
  nat_gateway_id = azurerm_nat_gateway.this[0].id
}
