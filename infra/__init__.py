"""What the jobs run on: the CloudFormation template, build scripts and the laptop pipeline."""
