"""The subcommands of posesdk-train, one module each; what they need is imported when they are called."""
