"""Other sandboxes' policies as manifests: what maps, what becomes stricter, what cannot be said. Pure: what a policy
means by the host around it (a home, a current directory, what exists) is asked of a `Surroundings`. docs/adapters.md.

imported       what comes out of every importer, and what is asked of the host
draft          a manifest in the making, with a finding for every part of the policy
standing       where a command that is run at once stands
view           a tool's list of mounts as a root, binds, tmpfs and what is hidden
patterns       paths with `*` in them
calls          another filter's calls as what a manifest allows and denies
codex, codex_policy, codex_words      Codex: its policies in all their forms, its helper's command line
srt, srt_settings, srt_words          Anthropic's sandbox-runtime: settings, command line
nsjail, nsjail_fields, text_format, kafel   nsjail: its config, protobuf's text form, its system-call policies
bubblewrap, bubblewrap_words, filters       bubblewrap: its command line, its compiled filters
show           a manifest's TOML with the findings above it

This file only names the package's parts; it imports nothing.
"""
