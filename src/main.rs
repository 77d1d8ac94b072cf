//! The command line's front door.
fn main() {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else is set up: the guard needs next to nothing, and has next to nothing.
    if arguments.next().is_some_and(|command| command == "guard") {
        surus::host::guard::process::main(arguments);
    }
}
