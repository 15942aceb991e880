"""An exported language model as a Hugging Face ``PreTrainedModel``, with ``generate``.

Tokens are bytes, so there is no tokenizer: ``torch.tensor([list(b"text")])``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_evolved import EvolvedConfig
from .decoding import Decoding, State, advance, resumes
from .language_model import build

# Named here because Transformers copies those modules alone that the first one imports.


@dataclass
class EvolvedOutput(ModelOutput):
    """What ``forward`` returns.

    Attributes:
        loss: mean cross-entropy in nats, with ``labels``.
        logits: float32 (batch, n, 256).
        state: what decoding goes on from, with ``use_cache``.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    state: State | None = None


class EvolvedForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model; ``model`` is the plain module."""

    config_class = EvolvedConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _is_stateful = True  # a recurrent state cannot be cut back, as assisted decoding wants
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        # from_pretrained builds on the meta device, where tables have no values and evolved code may fail.
        with torch.device("cpu"):
            self.model = build(config.architecture, config.max_position_embeddings, Decoding)
        for module in self.model.modules():  # tables go with the weights: whoever loads may have dropped their values
            module._non_persistent_buffers_set.clear()
        self.resumes = config.resume and resumes(self.model)
        self.post_init()

    def _init_weights(self, module):
        """Nothing: the plain module draws its own."""

    def get_input_embeddings(self):
        """The table of bytes."""
        return self.model.embedding

    def get_output_embeddings(self):
        """The output matrix."""
        return self.model.head

    def forward(
        self, input_ids, attention_mask=None, labels=None, state=None, use_cache=False, return_dict=True, **kwargs
    ):
        """Logits of the next byte.

        Args:
            input_ids: int64 (batch, n), bytes; those after ``state`` where one is given.
            attention_mask: (batch, any), all ones.
            labels: int64 (batch, n), usually ``input_ids``; -100 is left out. Shifted here.
            state: of an earlier call with ``use_cache``.
            use_cache: also return the state.
            return_dict: False for a tuple.
            kwargs: ignored.

        Raises:
            ValueError: padding, or a sequence longer than the positions.
        """
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("attention_mask: padding is not supported; sequences of a batch are of one length")
        length = input_ids.shape[1] + (0 if state is None else state.tokens.shape[1])
        longest = self.config.max_position_embeddings
        if length > longest and self.config.architecture["position"] != "none":
            raise ValueError(f"{length} tokens; the positions end at max_position_embeddings = {longest}")
        if use_cache or state is not None:
            logits, state = advance(self.model, input_ids, state, self.resumes)
        else:
            logits = self.model(input_ids)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        output = EvolvedOutput(loss=loss, logits=logits, state=state if use_cache else None)
        return output if return_dict else output.to_tuple()

    # -- generation ---------------------------------------------------------------------------------------------------

    @classmethod
    def _supports_default_dynamic_cache(cls):
        """The state is of our own kind."""
        return False

    def prepare_inputs_for_generation(self, input_ids, state=None, attention_mask=None, use_cache=True, **kwargs):
        """Arguments of ``forward``: the tokens after the state, whose rows are found by the tokens they have seen. Not
        every version of Transformers says when beam search reorders rows."""
        state = None if state is None or not use_cache else state.matching(input_ids)
        rest = input_ids if state is None else input_ids[:, state.tokens.shape[1] :]
        return {"input_ids": rest, "state": state, "attention_mask": attention_mask, "use_cache": use_cache}

    def _reorder_cache(self, state, beam_idx):
        return state  # looked up by its tokens

    def _update_model_kwargs_for_generation(self, outputs, model_kwargs, *args, **kwargs):
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        return {**model_kwargs, "state": outputs.state}
