//! Compiles `proto/` without `protoc`.

fn main() {
    println!("cargo::rerun-if-changed=proto");
    let files = [
        "proto/longhaul.proto",
        "proto/parameters.proto",
        "proto/service.proto",
        "proto/enroll.proto",
        "proto/renew.proto",
        "proto/denylist.proto",
    ];
    let descriptors = protox::compile(files, ["proto"]).expect("proto/ is valid");
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors).expect("the output folder can be written");
}
