//! Pages of a Fargate task in the AWS console, and where its log is. Pure. The addresses are those that the console itself
//! shows.

use super::options::EcsOptions;
use crate::links::{TaskLinks, encoded};

/// `arn`: `arn:<partition>:ecs:<region>:<account>:task/<cluster>/<id>`. ECS forgets a task an hour after its end; its log stays,
/// so it has an address of its own where the log group is known.
pub(super) fn of(arn: &str, options: &EcsOptions) -> Option<TaskLinks> {
    let mut parts = arn.split(':').skip(1);
    let (partition, region) = (parts.next()?, encoded(parts.nth(1)?));
    let domain = match partition {
        "aws" => "console.aws.amazon.com",
        "aws-cn" => "console.amazonaws.cn",
        "aws-us-gov" => "console.amazonaws-us-gov.com",
        _ => return None,
    };
    let (cluster, id) = arn.split_once(":task/")?.1.split_once('/')?;
    let console = format!("https://{region}.{domain}");
    let task = format!("{console}/ecs/v2/clusters/{}/tasks/{}", encoded(cluster), encoded(id));
    let log = match &options.log_group {
        Some(group) => {
            let [group, stream] = [group, &stream(id, options)].map(|part| in_fragment(part));
            format!("{console}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{group}/log-events/{stream}")
        }
        None => format!("{task}/logs?region={region}"),
    };
    Some(TaskLinks { task_url: Some(format!("{task}/configuration?region={region}")), log_url: Some(log) })
}

/// Where people find a task's log. Without its log group in the options only the task definition names it, which our identity
/// need not be able to read.
pub(super) fn log_of(arn: &str, options: &EcsOptions) -> String {
    let id = arn.rsplit('/').next().unwrap_or_default();
    let EcsOptions { task_definition, container, .. } = options;
    match &options.log_group {
        Some(group) => format!("CloudWatch, the log group {group}, the stream {}", stream(id, options)),
        None => format!(
            "CloudWatch, the log group of task definition {task_definition}, the stream that ends in {container}/{id}"
        ),
    }
}

/// Of the log driver `awslogs`.
fn stream(id: &str, options: &EcsOptions) -> String {
    format!("{}/{}/{id}", options.log_stream_prefix, options.container)
}

/// CloudWatch's page reads its fragment with `$` for `%`, and decodes it twice.
fn in_fragment(part: &str) -> String {
    encoded(part).replace('%', "$25")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-central-1:111122223333:task/egress/0f9d";

    #[test]
    fn a_task_has_a_page_and_its_log_one_that_lasts() {
        let options = EcsOptions { log_group: Some("/spillway/prod/runner".to_owned()), ..EcsOptions::default() };
        let links = of(ARN, &options).unwrap();
        assert_eq!(
            links.task_url.unwrap(),
            "https://eu-central-1.console.aws.amazon.com/ecs/v2/clusters/egress/tasks/0f9d/configuration?region=eu-central-1"
        );
        assert_eq!(
            links.log_url.unwrap(),
            "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#logsV2:log-groups/log-group/\
             $252Fspillway$252Fprod$252Frunner/log-events/runner$252Frunner$252F0f9d"
        );
        assert_eq!(
            log_of(ARN, &options),
            "CloudWatch, the log group /spillway/prod/runner, the stream runner/runner/0f9d"
        );
        let log = of(ARN, &EcsOptions::default()).unwrap().log_url.unwrap();
        assert!(log.ends_with("/clusters/egress/tasks/0f9d/logs?region=eu-central-1"), "{log}");
    }

    #[test]
    fn other_partitions_have_consoles_of_their_own_and_what_is_no_task_has_none() {
        let page = |arn: &str| of(arn, &EcsOptions::default()).and_then(|links| links.task_url);
        let china = page("arn:aws-cn:ecs:cn-north-1:1:task/c/t").unwrap();
        assert!(china.starts_with("https://cn-north-1.console.amazonaws.cn/ecs/"), "{china}");
        let gov = page("arn:aws-us-gov:ecs:us-gov-west-1:1:task/c/t").unwrap();
        assert!(gov.starts_with("https://us-gov-west-1.console.amazonaws-us-gov.com/"), "{gov}");
        for other in ["", "task/c/t", "arn:aws:ecs:r:1:task/c", "arn:moon:ecs:r:1:task/c/t"] {
            assert_eq!(page(other), None, "{other}");
        }
        // Out of a Redis that others write to: no other host, no script.
        let odd = page("arn:aws:ecs:evil.example/:1:task/c/\"><script>").unwrap();
        assert!(
            odd.starts_with("https://evil.example%2F.console.aws.amazon.com/") && !odd.contains(['<', '"']),
            "{odd}"
        );
    }
}
