//! What to change, by cause and kind of platform: a table of texts for the operator. Where the Terraform modules set it up, the
//! name in them is given. Pure.

use spillway_bus::ProbeCause;
use spillway_cost::Platform;

use crate::config::targets::{LauncherConfig, TargetConfig};

/// A kind of place where runners are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeSite {
    /// ECS on Fargate.
    Aws,
    /// Cloud Run jobs.
    Google,
    /// Container Instances.
    Azure,
    /// A machine with Docker.
    Docker,
    /// The machine of the dispatcher.
    Here,
}

impl ProbeSite {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Aws, Self::Google, Self::Azure, Self::Docker, Self::Here];

    /// Of a target.
    pub fn of(target: &TargetConfig) -> Self {
        match &target.launcher {
            LauncherConfig::Process { .. } | LauncherConfig::Simulated { .. } => Self::Here,
            LauncherConfig::Container(spec) => match spec.launcher.as_str() {
                "ecs" => Self::Aws,
                "cloud-run" => Self::Google,
                "aci" => Self::Azure,
                _ => Self::Docker,
            },
        }
    }

    /// Whose machines there are.
    pub fn platform(self) -> Platform {
        match self {
            Self::Aws => Platform::Fargate,
            Self::Google => Platform::CloudRun,
            Self::Azure => Platform::Aci,
            Self::Docker | Self::Here => Platform::Host,
        }
    }
}

/// What to change for this cause; never empty.
pub fn advice(cause: ProbeCause, site: ProbeSite) -> String {
    match special(cause, site) {
        "" => general(cause).to_owned(),
        special => format!("{} {special}", general(cause)),
    }
}

/// Everywhere the same.
fn general(cause: ProbeCause) -> &'static str {
    match cause {
        ProbeCause::QuotaReached => "Ask the vendor for more, or end what else runs in the account.",
        ProbeCause::NoCapacity => "Try again later, or name a second target: on demand, another zone or region.",
        ProbeCause::Throttled => {
            "Try again in a minute; lower the target's launches_per_second if recordings meet it too."
        }
        ProbeCause::PlatformSilent => {
            "Let the dispatcher reach the platform's API: network, proxy, `endpoint` in the target's options."
        }
        ProbeCause::CredentialsMissing => "Give the dispatcher an identity of the platform, or renew the one it has.",
        ProbeCause::LaunchDenied => "Allow the dispatcher's identity to launch here.",
        ProbeCause::PassRoleDenied => {
            "Allow the dispatcher's identity to give a task its identity, its network and its role."
        }
        ProbeCause::TargetNotFound => "Correct the names in the target's `options`, or make what they name.",
        ProbeCause::SubnetUnusable => {
            "Correct the target's network: it must exist, fit the platform and have free addresses."
        }
        ProbeCause::ImageNotPulled => "Push the image under exactly this name, and let the platform pull it.",
        ProbeCause::NoWayOut => "Give the task's network a way out to the registry and the secrets.",
        ProbeCause::SecretDenied => "Make the secret with a version, and allow the task's start to read it.",
        ProbeCause::LogDenied => "Make the log group, and allow the task's start to write there.",
        ProbeCause::WrongArchitecture => {
            "Build the image for the machine's processor, or choose the machine for the image."
        }
        ProbeCause::NotStarted => {
            "Look at the platform's page of the task; raise --timeout or start_deadline if it is only slow."
        }
        ProbeCause::NothingReported => "Read the log of the task: it left before it could report.",
        ProbeCause::RunnerTooOld => "Use a runner image of the dispatcher's version: this one knows no probe.",
        ProbeCause::OutOfMemory => "Give the task more memory: a larger size, or a larger job.",
        ProbeCause::CapacityReclaimed => {
            "Nothing: the vendor took the machine back; name an on-demand target after a spot one."
        }
        ProbeCause::HandoverMissing => "Give the task its secrets: the ticket key and how to reach Redis.",
        ProbeCause::NameNotFound => {
            "Correct the name in the configuration, or make it known to the network's name servers."
        }
        ProbeCause::NameServerSilent => "Make a name server reachable: port 53 over UDP and TCP.",
        ProbeCause::RedisUnreachable => "Make Redis reachable: address and port, route, firewall on both sides.",
        ProbeCause::RedisTls => {
            "Make both sides agree on TLS: redis.tls.enabled where Redis wants it and only there, its authority in \
             redis.tls.ca_cert_file, the name in its certificate."
        }
        ProbeCause::RedisLogin => "Correct redis.username and redis.password, also in the runner's secret.",
        ProbeCause::RedisRefuses => {
            "Use a Redis that takes writes, scripts and INFO: the master, with room, and an ACL that allows them."
        }
        ProbeCause::RedisEviction => "Set maxmemory-policy to noeviction: tickets and records are not a cache.",
        ProbeCause::RedisVersion => "Use Redis 5 or later, or Valkey.",
        ProbeCause::AnotherRedis => {
            "Give dispatcher and runner the same Redis and the same redis.db: the runner finds nothing of what the \
             dispatcher wrote."
        }
        ProbeCause::AnotherTicketKey => {
            "Give dispatcher and runner the same ticket_key; without one both derive it from api_secret."
        }
        ProbeCause::ClockWrong => "Let the machine set its clock by NTP; look at Redis' own, too.",
        ProbeCause::ServerUnreachable => {
            "Set ws_url to an address that is reachable from where runners are, and open its port in livekit-server's \
             firewall."
        }
        ProbeCause::ServerTls => {
            "Use wss:// where livekit-server or its proxy has TLS and only there, with a certificate that the \
             system's authorities know."
        }
        ProbeCause::TokenRefused => {
            "Set api_key and api_secret to a pair of livekit-server's `keys`; look at both clocks."
        }
        ProbeCause::ServerRefuses => {
            "Point ws_url at livekit-server's signal port, through a proxy that passes websockets."
        }
        ProbeCause::NoMedia => {
            "Open livekit-server's media ports (rtc.udp_port or its range, rtc.tcp_port) for the runners, set rtc.node_ip or \
             rtc.use_external_ip to an address they reach, or give it a TURN server."
        }
        ProbeCause::NoUdp => {
            "Open UDP to livekit-server's media ports (rtc.udp_port or port_range_start to port_range_end) in its firewall, and \
             out of the runners' network."
        }
        ProbeCause::MediaProcess => {
            "Put spillway-media of the same version beside spillway-runner, with GStreamer's libraries."
        }
        ProbeCause::BucketNotFound => {
            "Make the bucket or container, or correct its name, region and account in `storage`."
        }
        ProbeCause::StoreDenied => "Allow the identity to write below storage.prefix of this bucket.",
        ProbeCause::StoreCredentials => {
            "Correct or renew the keys in `storage`, or remove them so that the machine's identity is used."
        }
        ProbeCause::StoreUnreachable => {
            "Make the store reachable: endpoint, route, private endpoint, firewall of the store."
        }
        ProbeCause::StoreRefuses => {
            "Correct `storage` by what the store says: region, endpoint, force_path_style, object lock."
        }
        ProbeCause::IdentityMissing => "Give the task an identity of the platform, or keys in `storage`.",
        ProbeCause::SpoolUnusable => "Make the folder writable for the runner's user: runner.spool_dir, local_root.",
        ProbeCause::SpoolSmall => "Give the task a larger disk, or point runner.spool_dir at one.",
        ProbeCause::MachineSmall => {
            "Correct the size: what the platform gives is less than what recordings are planned for."
        }
        ProbeCause::Unclear => "See the message; nothing is known about it.",
    }
}

/// On this kind of platform besides; empty: nothing.
fn special(cause: ProbeCause, site: ProbeSite) -> &'static str {
    use ProbeSite::{Aws, Azure, Docker, Google, Here};
    match (cause, site) {
        (ProbeCause::QuotaReached, Aws) => {
            "Service Quotas → AWS Fargate → \"Fargate On-Demand vCPU resource count\" and \"Fargate Spot vCPU resource \
             count\"."
        }
        (ProbeCause::QuotaReached, Google) => {
            "IAM & Admin → Quotas → \"Cloud Run Admin API\": running executions and CPU of the region."
        }
        (ProbeCause::QuotaReached, Azure) => {
            "Quotas → Container Instances: container groups and standard cores of the region; groups that have ended \
             count until they are deleted."
        }
        (ProbeCause::PlatformSilent, Docker) => {
            "Here: is the daemon running, and is its socket mounted and readable for the dispatcher's user?"
        }
        (ProbeCause::CredentialsMissing, Aws) => {
            "The dispatcher's task role (Terraform: aws_iam_role.dispatcher), or AWS_ACCESS_KEY_ID."
        }
        (ProbeCause::CredentialsMissing, Google) => {
            "The dispatcher's service account, or GOOGLE_APPLICATION_CREDENTIALS."
        }
        (ProbeCause::CredentialsMissing, Azure) => {
            "The dispatcher's user-assigned identity and `client_id` in the target's options."
        }
        (ProbeCause::LaunchDenied, Aws) => {
            "ecs:RunTask on the task definition, with the condition on the cluster, and ecs:TagResource."
        }
        (ProbeCause::LaunchDenied, Google) => "run.jobs.run and run.jobs.runWithOverrides on the job.",
        (ProbeCause::LaunchDenied, Azure) => {
            "Microsoft.ContainerInstance/containerGroups/write on the runners' resource group."
        }
        (ProbeCause::LaunchDenied, Docker) => "The dispatcher's user must be in the group of Docker's socket.",
        (ProbeCause::PassRoleDenied, Aws) => "iam:PassRole on the runner's task role and execution role.",
        (ProbeCause::PassRoleDenied, Google) => "roles/iam.serviceAccountUser on the runner's service account.",
        (ProbeCause::PassRoleDenied, Azure) => {
            "userAssignedIdentities/assign/action on the runner's identity and subnets/join/action on its subnet."
        }
        (ProbeCause::TargetNotFound, Aws) => "cluster, task_definition (an active revision), region.",
        (ProbeCause::TargetNotFound, Google) => "project, location and the jobs; one must be large enough.",
        (ProbeCause::TargetNotFound, Azure) => "subscription, resource_group, location.",
        (ProbeCause::TargetNotFound, Here) => "runner_program must be spillway-runner, executable.",
        (ProbeCause::SubnetUnusable, Aws) => {
            "subnets and security_groups must be of one VPC; a /24 has room for 250 tasks."
        }
        (ProbeCause::SubnetUnusable, Google) => {
            "The job's network and subnet, and free addresses for direct VPC egress."
        }
        (ProbeCause::SubnetUnusable, Azure) => {
            "The subnet must be delegated to Microsoft.ContainerInstance/containerGroups, in the same region."
        }
        (ProbeCause::ImageNotPulled, Aws) => {
            "The execution role needs ecr:BatchGetImage, ecr:GetDownloadUrlForLayer and ecr:GetAuthorizationToken."
        }
        (ProbeCause::ImageNotPulled, Google) => {
            "The service agent of Cloud Run needs artifactregistry.reader on the repository."
        }
        (ProbeCause::ImageNotPulled, Azure) => "`registry` must name it, and the first of `identities` needs AcrPull.",
        (ProbeCause::ImageNotPulled, Docker) => "docker pull or docker load it on that machine, or log its daemon in.",
        (ProbeCause::NoWayOut, Aws) => {
            "A public address (assign_public_ip) in a subnet with an internet gateway, or NAT, or endpoints for ECR, S3, Logs and \
             Secrets Manager; the security group must let port 443 out."
        }
        (ProbeCause::NoWayOut, Google) => "Cloud NAT for the subnet, or Private Google Access.",
        (ProbeCause::NoWayOut, Azure) => {
            "A NAT gateway on the subnet; its network security group must let port 443 out."
        }
        (ProbeCause::SecretDenied, Aws) => {
            "The execution role needs secretsmanager:GetSecretValue on it, and kms:Decrypt with a key of your own."
        }
        (ProbeCause::SecretDenied, Google) => "The runner's service account needs secretmanager.secretAccessor on it.",
        (ProbeCause::LogDenied, Aws) => {
            "logs:CreateLogStream and logs:PutLogEvents for the execution role; the group's KMS key must allow logs."
        }
        (ProbeCause::WrongArchitecture, Aws) => {
            "runtimePlatform of the task definition (`architecture` in Terraform) must match the image."
        }
        (ProbeCause::WrongArchitecture, Google | Azure) => "Only amd64 runs here.",
        (ProbeCause::NotStarted, Google | Azure) => {
            "A start through a network takes a minute or more: start_deadline of 240 s is usual."
        }
        (ProbeCause::OutOfMemory, Google) => "The files of a run are in its memory, too.",
        (ProbeCause::HandoverMissing, Aws) => {
            "`secrets` of the task definition: SPILLWAY_TICKET_KEY, SPILLWAY_REDIS_PASSWORD; SPILLWAY_REDIS in its \
             environment."
        }
        (ProbeCause::HandoverMissing, Google) => {
            "Environment of the job: SPILLWAY_TICKET_KEY from a secret, SPILLWAY_REDIS."
        }
        (ProbeCause::NameServerSilent, Aws) => "enableDnsSupport of the VPC.",
        (ProbeCause::NameServerSilent | ProbeCause::NameNotFound, Azure) => {
            "Container groups in a subnet use name_servers of the target, by default Azure's 168.63.129.16, which \
             knows linked private zones only."
        }
        (ProbeCause::NameNotFound, Google) => "A private zone must be visible to the job's network.",
        (ProbeCause::NameNotFound | ProbeCause::RedisUnreachable | ProbeCause::ServerUnreachable, Docker) => {
            "In a container `localhost` is the container: use the host's address, or `network: host` in the target's \
             options."
        }
        (ProbeCause::RedisUnreachable, Aws) => {
            "Redis' security group must let the runners' in (redis.clients, redis.client_cidrs); peered networks need \
             routes both ways."
        }
        (ProbeCause::RedisUnreachable, Google) => {
            "Memorystore is reachable from its own network only, not through a peering."
        }
        (ProbeCause::RedisUnreachable, Azure) => {
            "Private endpoint and its DNS zone linked to the runners' network (redis.dns_networks)."
        }
        (ProbeCause::AnotherRedis | ProbeCause::AnotherTicketKey, Aws | Google) => {
            "The runner has its own in SPILLWAY_REDIS and the secret; a new version of a secret is read at the next \
             start."
        }
        (ProbeCause::NoUdp | ProbeCause::NoMedia, Aws) => {
            "The runners' security group must let UDP out; livekit-server's must let UDP in from their addresses."
        }
        (ProbeCause::NoUdp | ProbeCause::NoMedia, Google) => {
            "Media over UDP needs egress = \"ALL_TRAFFIC\" on the jobs, and Cloud NAT."
        }
        (ProbeCause::NoUdp | ProbeCause::NoMedia, Azure) => {
            "The subnet's network security group and NAT gateway must let UDP out."
        }
        (ProbeCause::NoUdp | ProbeCause::NoMedia, Docker) => "`network: host` spares the container Docker's NAT.",
        (ProbeCause::StoreDenied, Aws) => {
            "s3:PutObject and s3:AbortMultipartUpload for the runner's task role on bucket/prefix*; the bucket policy \
             and its KMS key must not deny it."
        }
        (ProbeCause::StoreDenied, Google) => {
            "The runner's service account needs storage.objects.create and storage.multipartUploads.* on the bucket \
             below the prefix."
        }
        (ProbeCause::StoreDenied, Azure) => {
            "\"Storage Blob Data Contributor\" or the module's role for the runner's identity on the container; a new \
             assignment takes minutes."
        }
        (ProbeCause::StoreCredentials | ProbeCause::IdentityMissing, Aws) => {
            "taskRoleArn of the task definition must be the runner's role."
        }
        (ProbeCause::StoreCredentials | ProbeCause::IdentityMissing, Google) => {
            "The job must run as the runner's service account."
        }
        (ProbeCause::StoreCredentials | ProbeCause::IdentityMissing, Azure) => {
            "`identities` of the target, and AZURE_CLIENT_ID in its environment, must be the runner's."
        }
        (ProbeCause::StoreUnreachable, Aws) => "A gateway endpoint for S3, or a way out.",
        (ProbeCause::StoreUnreachable, Azure) => {
            "Service endpoint Microsoft.Storage on the subnet, or a private endpoint; network rules of the account."
        }
        (ProbeCause::SpoolSmall, Aws) => "ephemeralStorage of the task goes to 200 GiB.",
        (ProbeCause::SpoolSmall, Google) => "The spool is in memory: a job with more of it.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_advice_everywhere() {
        for cause in ProbeCause::ALL {
            for site in ProbeSite::ALL {
                let advice = advice(*cause, site);
                assert!(
                    advice.len() > 20 && advice.ends_with('.') || advice.ends_with('?'),
                    "{cause:?} {site:?}: {advice}"
                );
            }
        }
    }

    #[test]
    fn a_cloud_names_its_own_setting() {
        assert!(advice(ProbeCause::QuotaReached, ProbeSite::Aws).contains("Service Quotas"));
        assert!(advice(ProbeCause::StoreDenied, ProbeSite::Google).contains("storage.objects.create"));
        assert!(advice(ProbeCause::SubnetUnusable, ProbeSite::Azure).contains("delegated"));
        assert!(!advice(ProbeCause::ClockWrong, ProbeSite::Here).contains("Terraform"));
    }
}
