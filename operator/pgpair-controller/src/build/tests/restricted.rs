//! The rules of the Pod Security Standards, profile `restricted` (which includes `baseline`), for pods on Linux.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Volume};

/// Names of the rules that a pod of this template breaks, each once.
pub fn violations(template: &PodTemplateSpec) -> Vec<&'static str> {
    let spec = template.spec.clone().unwrap_or_default();
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let mut broken: Vec<_> = of_pod(&spec);
    for container in &containers {
        broken.extend(of_container(&spec, container));
    }
    let mut seen = Vec::new();
    broken.retain(|rule| {
        !seen.contains(rule) && {
            seen.push(*rule);
            true
        }
    });
    broken
}

fn of_pod(spec: &PodSpec) -> Vec<&'static str> {
    let security = spec.security_context.clone().unwrap_or_default();
    let host = spec.host_network == Some(true) || spec.host_pid == Some(true) || spec.host_ipc == Some(true);
    let rules = [
        ("Host Namespaces", !host),
        ("Volume Types", spec.volumes.iter().flatten().all(is_allowed)),
        ("Running as Non-root user", security.run_as_user != Some(0)),
        ("SELinux", security.se_linux_options.is_none()),
        ("Sysctls", security.sysctls.is_none()),
        ("AppArmor", security.app_armor_profile.is_none()),
        ("HostProcess", security.windows_options.is_none()),
    ];
    rules.iter().filter(|(_, kept)| !kept).map(|(rule, _)| *rule).collect()
}

fn of_container(spec: &PodSpec, container: &Container) -> Vec<&'static str> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let seccomp = own.seccomp_profile.or(pod.seccomp_profile).map(|profile| profile.type_);
    let no_ports = container.ports.iter().flatten().all(|p| p.host_port.unwrap_or(0) == 0);
    let added = capabilities.add.iter().flatten().all(|c| c == "NET_BIND_SERVICE");
    let rules = [
        ("Privileged Containers", own.privileged != Some(true)),
        ("Host Ports", no_ports),
        ("/proc Mount Type", own.proc_mount.as_deref().unwrap_or("Default") == "Default"),
        ("Privilege Escalation", own.allow_privilege_escalation == Some(false)),
        ("Running as Non-root", own.run_as_non_root.or(pod.run_as_non_root) == Some(true)),
        ("Running as Non-root user", own.run_as_user != Some(0)),
        ("Seccomp", matches!(seccomp.as_deref(), Some("RuntimeDefault" | "Localhost"))),
        ("Capabilities", capabilities.drop.iter().flatten().any(|c| c == "ALL") && added),
        ("SELinux", own.se_linux_options.is_none()),
        ("AppArmor", own.app_armor_profile.is_none()),
        ("HostProcess", own.windows_options.is_none()),
    ];
    rules.iter().filter(|(_, kept)| !kept).map(|(rule, _)| *rule).collect()
}

/// configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected, secret; nothing else.
fn is_allowed(volume: &Volume) -> bool {
    let allowed = [
        volume.config_map.is_some(),
        volume.csi.is_some(),
        volume.downward_api.is_some(),
        volume.empty_dir.is_some(),
        volume.ephemeral.is_some(),
        volume.persistent_volume_claim.is_some(),
        volume.projected.is_some(),
        volume.secret.is_some(),
    ];
    let sources = serde_json::to_value(volume).ok().and_then(|v| v.as_object().map(|o| o.len()));
    allowed.iter().filter(|a| **a).count() == 1 && sources == Some(2)
}
