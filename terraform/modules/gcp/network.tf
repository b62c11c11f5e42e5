# Google does not guarantee UDP on Cloud Run's own egress; through a network there is. Nothing comes in: jobs and the internal
# service accept no connection through Direct VPC, and a network without rules denies ingress.

locals {
  network    = var.network.create ? google_compute_network.this[0].id : var.network.network
  subnetwork = var.network.create ? google_compute_subnetwork.this[0].id : var.network.subnetwork
}

resource "google_compute_network" "this" {
  count                   = var.network.create ? 1 : 0
  project                 = var.project_id
  name                    = local.global
  auto_create_subnetworks = false

  depends_on = [time_sleep.apis]
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
