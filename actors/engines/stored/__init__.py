"""What a trained model is written as: a directory of Hugging Face, a checkpoint of ZeRO-3.

Files and tensors alone; the engines that write and read them are one level up. Begin with
`saved_model.py`.

Imports: `reward.model`, `rl.base`, `conf`.
"""
