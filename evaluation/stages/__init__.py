"""What each stage of dvc.yaml leaves behind: small files that say the same for the same results.

They may import iterations and fronts of this package.
"""
