"""vLLM finds this through its `vllm.general_plugins` entry point and calls `register` in every process."""


def register() -> None:
    """Make `--weight-transfer-config '{"backend": "chorus"}'` mean our receiver."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "chorus" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("chorus", "chorus.generator.receiver", "ChorusReceiver")
