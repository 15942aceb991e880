"""Configuration of an exported language model."""

from transformers import PretrainedConfig


class EvolvedConfig(PretrainedConfig):
    """Sizes and mechanisms.

    Args:
        architecture: the parameters, as ``build`` in language_model.py takes them.
        max_position_embeddings: longest sequence, in bytes.
        resume: whether decoding goes on from a state; otherwise everything is read again for each token. train.py finds
            out and sets it for mechanisms that are not the references.
    """

    model_type = "asi_evolve"

    def __init__(self, architecture=None, max_position_embeddings=128, resume=False, **kwargs):
        self.architecture, self.resume = dict(architecture or {}), resume
        sizes = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
        kwargs |= {name: self.architecture.get(ours) for name, ours in sizes.items()}
        kwargs |= {"vocab_size": 256, "max_position_embeddings": max_position_embeddings}
        super().__init__(**{"tie_word_embeddings": bool(self.architecture.get("tie_embeddings")), **kwargs})
