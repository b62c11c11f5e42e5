# Google does not guarantee UDP on Cloud Run's own egress; through a network there is. No firewall rule allows ingress.

locals {
  network    = var.network.create ? google_compute_network.this[0].id : var.network.network
  subnetwork = var.network.create ? google_compute_subnetwork.this[0].id : var.network.subnetwork
}

resource "google_compute_network" "this" {
  count                   = var.network.create ? 1 : 0
  project                 = var.project_id
  name                    = local.prefix
  auto_create_subnetworks = false

  depends_on = [google_project_service.this]
}

# Two to four addresses for each runner while they come and go: some 1,000 runners in a /20.
resource "google_compute_subnetwork" "this" {
  count                    = var.network.create ? 1 : 0
  project                  = var.project_id
  region                   = var.region
  name                     = local.prefix
  network                  = google_compute_network.this[0].id
  ip_cidr_range            = var.network.cidr
  private_ip_google_access = true
}

resource "google_compute_router" "this" {
  count   = var.network.create ? 1 : 0
  project = var.project_id
  region  = var.region
  name    = local.prefix
  network = google_compute_network.this[0].id
}

# A recording holds a port for each of its few connections.
resource "google_compute_router_nat" "this" {
  count                              = var.network.create ? 1 : 0
  project                            = var.project_id
  region                             = var.region
  name                               = local.prefix
  router                             = google_compute_router.this[0].name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
  min_ports_per_vm                   = 256

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# A network denies ingress anyway; this rule keeps runners closed when a later one opens the network.
resource "google_compute_firewall" "nothing_comes_in" {
  count         = var.network.create ? 1 : 0
  project       = var.project_id
  name          = "${local.prefix}-nothing-comes-in"
  description   = "Runners and dispatchers begin every connection themselves"
  network       = google_compute_network.this[0].id
  direction     = "INGRESS"
  priority      = 900
  source_ranges = ["0.0.0.0/0"]
  target_tags   = ["${local.prefix}-runner", "${local.prefix}-dispatcher"]

  deny {
    protocol = "all"
  }
}
