"""`python -m afftool.profile.server`: TensorBoard, with pages of the plugin's that work without a network too."""

from __future__ import annotations

from afftool.profile.plugin import work_without_network


def main() -> None:
    """Run TensorBoard with this process's arguments."""
    from tensorboard.main import run_main

    work_without_network()
    run_main()


if __name__ == "__main__":  # the plugin's workers import this file again
    main()
