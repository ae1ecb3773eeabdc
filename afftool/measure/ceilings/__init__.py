"""What this machine can reach at best, measured once, and what therefore bounds a row.

Only `calibrate` imports torch.
"""
